//! Other agents of the service: asked, and answered, by HTTP/1.1 over TLS 1.3 in which both show a certificate that the server
//! vouches for.

mod asking;
mod serving;
mod tls;

pub use asking::Asking;
pub use serving::Serving;
pub use tls::Own;

/// The header with the pass that shows that the server lets an agent have a list of pieces.
const PASS: &str = "kiln-pass";
