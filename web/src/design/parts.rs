//! Small pieces that several pages show.

use maud::{Markup, html};

use crate::format::{buck2_address, grpc_address};

/// Longest string from outside that a table shows, in characters.
pub const MAX_CELL: usize = 160;

/// A figure with its name above and a remark below.
pub fn tile(name: &str, figure: &Markup, remark: &Markup) -> Markup {
    html! {
        div.tile {
            dt { (name) }
            dd.figure { (figure) }
            dd.remark { (remark) }
        }
    }
}

/// What to type so that a build comes here.
pub fn how_to_build(base_url: &str) -> Markup {
    let address = grpc_address(base_url);
    let (buck2, tls) = buck2_address(base_url);
    html! {
        div.howto {
            h3 { "Bazel" }
            pre { code { "bazel build --remote_executor=" (address) " //..." } }
            h3 { "Buck2, in " code { ".buckconfig" } }
            pre { code {
                "[buck2_re_client]\nengine_address = " (buck2)
                "\naction_cache_address = " (buck2)
                "\ncas_address = " (buck2)
                "\ntls = " (tls)
            } }
        }
    }
}
