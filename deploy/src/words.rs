//! Words that may stand in the configuration of another program: nothing in them means anything to it.

use std::net::{Ipv4Addr, Ipv6Addr};

const MAX_NAME: usize = 63;
const MAX_HOST: usize = 253;

/// 1 to 63 letters, digits, `_` and `-`: a part of a balancer's name for a place.
pub fn is_part(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && !text.starts_with('-')
        && text.bytes().all(|it| it.is_ascii_alphanumeric() || b"_-".contains(&it))
}

/// Whether the text is a name of a target: such words with dots within.
pub fn is_name(text: &str) -> bool {
    let of_names = |it: u8| it.is_ascii_alphanumeric() || b"_-.".contains(&it);
    (1..=MAX_HOST).contains(&text.len())
        && !text.starts_with(['-', '.'])
        && text.bytes().all(of_names)
}

/// `host:port`, where the host is a name, an address of version 4, or one of version 6 in brackets.
pub fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let digits = (1..=5).contains(&port.len()) && port.bytes().all(|it| it.is_ascii_digit());
    digits && port.parse::<u16>().is_ok_and(|port| port > 0) && is_host(host)
}

fn is_host(host: &str) -> bool {
    if let Some(inside) = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        return inside.parse::<Ipv6Addr>().is_ok();
    }
    // What ends in a number is an address, or nothing.
    let last = host.rsplit('.').next().unwrap_or_default();
    if !last.is_empty() && last.bytes().all(|it| it.is_ascii_digit()) {
        return host.parse::<Ipv4Addr>().is_ok();
    }
    let label = |label: &str| is_part(label) && !label.ends_with('-');
    host.len() <= MAX_HOST && host.split('.').all(label)
}

/// What an operator may add to each server's line: words without a quote, a variable, or an end of the line.
pub fn is_options(text: &str) -> bool {
    let of_options = |it: u8| it.is_ascii_alphanumeric() || b" _-.=/:,%".contains(&it);
    text.len() <= 1_000 && text.bytes().all(of_options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_mean_nothing_to_a_balancer() {
        for good in ["a", "api-1", "API_1", "0a"] {
            assert!(is_part(good) && is_name(good), "{good}");
        }
        assert!(is_name("web-1.example.com") && !is_part("a.b"));
        let long = "a".repeat(300);
        for bad in [
            "", "-a", ".a", "a b", "a;", "a{", "a\nb", "a#", "a$b", "a\"", "a'", "ä", "a/b", "a\\",
            &long,
        ] {
            assert!(!is_name(bad) && !is_part(bad), "{bad:?}");
        }
        for bad in ["a; b", "a{}", "a\nb", "a # b", "$a", "'", "\"", "a\\"] {
            assert!(!is_options(bad), "{bad:?}");
        }
        assert!(is_options("max_fails=3 fail_timeout=5s") && is_options("check inter 1s"));
    }

    #[test]
    fn addresses_are_a_host_and_a_port() {
        for good in ["127.0.0.1:80", "[::1]:8080", "web-1.example.com:65535", "localhost:1"] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a",
            "a:",
            "a:0",
            "a:65536",
            "a:+80",
            "a:80 down",
            "a:80;",
            "1.2.3:80",
            "1.2.3.256:80",
            "::1:80",
            "[::1]",
            "[fe80::1%eth0]:80",
            "unix:/run/x:80",
            "a..b:80",
            "a_:8\n0",
            "a/b:80",
            "*:80",
            "a-:80",
        ] {
            assert!(!is_address(bad), "{bad:?}");
        }
    }
}
