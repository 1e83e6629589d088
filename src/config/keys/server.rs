//! The port: who may connect, by what, and as whom.

use super::key::{Key, Kind, key};

pub const KEYS: &[Key] = &[
    key("server.listen", "127.0.0.1:8980", Kind::Address, "Address for gRPC and HTTP."),
    key(
        "server.insecure",
        "false",
        Kind::Bool,
        "Allow an address that is not loopback without auth.access_files. Whoever reaches it may read, \
         write and execute, and run actions for others; on loopback too.",
    ),
    key(
        "server.base_url",
        "auto",
        Kind::BaseUrl,
        "How people reach the web pages, for links. auto: http:// or https:// and the address; with one that \
         stands for all (0.0.0.0), what each client calls the server, else this machine's name.",
    ),
    key(
        "server.hosts",
        "",
        Kind::List,
        "Names by which browsers and HTTP clients may call the server besides those of \
         server.base_url and server.listen, this machine's own and those without a dot. *: any. \
         Without TLS others are turned away.",
    ),
    key(
        "server.handshake_timeout",
        "10s",
        Kind::DurationFrom(100),
        "How long a client may take for its TLS handshake, and then to say which protocol it speaks.",
    ),
    key(
        "server.header_timeout",
        "30s",
        Kind::DurationFrom(100),
        "How long an HTTP/1 client may take for the headers of a request, and be silent between two.",
    ),
    key(
        "server.body_timeout",
        "2m",
        Kind::DurationFrom(100),
        "How long a client may send nothing of a request's body that is waited for, and take nothing \
         of an answer.",
    ),
    key(
        "server.max_connections",
        "8192",
        Kind::NumberIn(1, 1_000_000),
        "Most connections at a time.",
    ),
    key(
        "server.max_connections_per_peer",
        "2048",
        Kind::NumberIn(1, 1_000_000),
        "The same from one address (IPv6: one /64). A balancer is one.",
    ),
    key(
        "server.front_threads",
        "auto",
        Kind::NumberIn(1, 256),
        "Threads that serve connections. auto: one a core, at most 8.",
    ),
    key(
        "server.request_memory",
        "auto",
        Kind::SizeFrom(kiln_cas::budget::MIN_BUDGET),
        "Most memory of all requests under way; half of it for one address. Requests wait for it, and are \
         then refused. auto: a quarter of the memory here, at least 256MiB.",
    ),
    key(
        "server.drain",
        "30s",
        Kind::Duration,
        "What running actions and open requests get when the server is told to end. Its own workers then \
         give back what still runs.",
    ),
    key(
        "tls.cert",
        "",
        Kind::Path,
        "Certificate chain (PEM): the port speaks TLS. Read again when it changes.",
    ),
    key("tls.key", "", Kind::Path, "Private key (PEM) of tls.cert."),
    key(
        "tls.client_ca",
        "",
        Kind::Path,
        "Authorities (PEM) of client certificates (mutual TLS). Empty: clients are asked for none.",
    ),
    key(
        "tls.client_auth",
        "optional",
        Kind::Choice(&["optional", "required"]),
        "required: whoever shows no certificate of tls.client_ca is not let in at all.",
    ),
    key(
        "auth.access_files",
        "",
        Kind::Paths,
        "Files (TOML) that say who may do what: static tokens and grants of roles. Empty: everybody \
         may do everything. Read again when they change.",
    ),
    key(
        "auth.jwt_keys",
        "",
        Kind::Paths,
        "Files with public keys of JWTs (RS256, ES256): PEM, or a key set (JWKS). Read again when they change.",
    ),
    key(
        "auth.jwt_secret",
        "",
        Kind::Path,
        "File with the secret of JWTs (HS256), 32 bytes or more. Read again when it changes.",
    ),
    key(
        "auth.jwks_url",
        "",
        Kind::Text,
        "Where an identity provider publishes its keys (JWKS), https://.",
    ),
    key(
        "auth.jwks_refresh",
        "10m",
        Kind::Duration,
        "How often auth.jwks_url is fetched, at least 10s; sooner when a token names an unknown key.",
    ),
    key("auth.jwt_issuer", "", Kind::Text, "The issuer of JWTs (claim iss). Empty: any."),
    key(
        "auth.jwt_audience",
        "",
        Kind::List,
        "Whom JWTs are for (claim aud); a token has to name one of these.",
    ),
    key(
        "auth.jwt_leeway",
        "30s",
        Kind::Duration,
        "What clocks may differ by for a JWT's times, at most 5m.",
    ),
    key(
        "auth.open",
        "health, metrics",
        Kind::List,
        "What needs no credentials, of health, metrics and pages (the web pages and their API).",
    ),
];
