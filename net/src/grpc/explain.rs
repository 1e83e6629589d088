//! What failed calls and connections mean, in one line that says what to do.

use std::error::Error;
use std::io;

use rustls::CertificateError;
use tonic::Status;

use crate::causes::{self, one_line};

/// Why a call came to nothing: what lies under it, rather than that a transport failed.
pub fn unheard(status: &Status) -> String {
    match causes::find::<rustls::Error>(status) {
        Some(error) => of_tls(error),
        None => innermost(status),
    }
}

/// What is wrong where one side speaks TLS and the other does not, or does not accept the other's.
/// `secure`: whether the client does. `None`: it is something else.
pub fn of_other_protocol(error: &(dyn Error + 'static), secure: bool) -> Option<String> {
    if let Some(error) = causes::find::<rustls::Error>(error) {
        return Some(of_tls(error));
    }
    const REFUSED: Option<io::ErrorKind> = Some(io::ErrorKind::ConnectionRefused);
    let kind = causes::find::<io::Error>(error).map(io::Error::kind);
    let broken_off =
        matches!(kind, Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset));
    let words = match secure {
        true if broken_off => {
            "the server broke off the TLS handshake: if that port is without TLS, write http:// \
             in --server; if it wants a certificate, give one (--tls-client-cert)"
        }
        false if causes::find::<hyper::Error>(error).is_some() && kind != REFUSED => {
            "what answers there does not speak gRPC without TLS: if that port is one with TLS, \
             write https:// in --server"
        }
        _ => return None,
    };
    Some(words.to_owned())
}

fn of_tls(error: &rustls::Error) -> String {
    use rustls::Error as Tls;
    match error {
        Tls::InvalidMessage(_) => {
            "that port does not speak TLS: write http:// in --server, or name the port with TLS"
                .to_owned()
        }
        Tls::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the server's certificate is from an authority that is not trusted here: name that \
             authority's certificate with --tls-ca (or KILN_CA_FILE)"
                .to_owned()
        }
        Tls::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "the server's certificate is for another name: use one of its names in --server"
            .to_owned(),
        Tls::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "the server's certificate has expired: renew it there".to_owned(),
        Tls::InvalidCertificate(_) => format!(
            "the server's certificate is not accepted: {}; where it is right, name its authority \
             with --tls-ca",
            one_line(&error.to_string())
        ),
        Tls::AlertReceived(_) => format!(
            "the server refuses the TLS connection: {}; check --tls-client-cert",
            one_line(&error.to_string())
        ),
        _ => format!("TLS failed: {}", one_line(&error.to_string())),
    }
}

/// The innermost cause, or the message where there is none.
pub fn innermost(status: &Status) -> String {
    match status.source() {
        Some(error) => causes::innermost(error),
        None => one_line(status.message()),
    }
}
