//! Who a client says it is.

mod token;

use kiln_net::tls::TlsFiles;
pub(super) use token::Authorization;
pub use token::{Token, TokenError};

#[derive(Debug, Clone, Default)]
pub struct Credentials {
    pub tls: TlsFiles,
    pub token: Option<Token>,
}
