//! Plain HTTP requests by a few classes of routes and the statuses that this server answers.

/// The classes of HTTP paths by which plain requests are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// The HTTP cache protocol: `/ac/` and `/cas/`, below any instance name.
    Cache,
    /// Web pages and what they load.
    Page,
    /// The JSON API below `/api/`.
    Api,
    /// Contents below `/blobs/`.
    Blob,
    Metrics,
    /// The registry, below `/v2/`.
    Registry,
    /// A path of none of these classes.
    Other,
}

pub const ROUTES: [(Route, &str); 7] = [
    (Route::Cache, "cache"),
    (Route::Page, "page"),
    (Route::Api, "api"),
    (Route::Blob, "blob"),
    (Route::Metrics, "metrics"),
    (Route::Registry, "registry"),
    (Route::Other, "other"),
];

/// Statuses counted one by one.
pub const STATUSES: [u16; 22] = [
    200, 201, 202, 204, 206, 303, 304, 400, 401, 403, 404, 405, 409, 411, 412, 413, 415, 416, 429,
    500, 503, 507,
];

const PAGES: [&str; 6] =
    ["/builds", "/actions", "/cas/tree/", "/queue", "/style.css", "/favicon.svg"];

impl Route {
    /// The class of a request's path.
    pub fn of(path: &str) -> Self {
        if path == "/" || PAGES.iter().any(|page| path.starts_with(page)) {
            Self::Page
        } else if path.starts_with("/api/") {
            Self::Api
        } else if path.starts_with("/blobs/") {
            Self::Blob
        } else if path == "/metrics" {
            Self::Metrics
        } else if path.starts_with("/v2/") {
            Self::Registry
        } else if path.contains("/cas/") || path.contains("/ac/") {
            Self::Cache
        } else {
            Self::Other
        }
    }
}

/// The place of a status in [`STATUSES`]; one after the last for all others.
pub fn status_place(status: u16) -> usize {
    STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_the_class_of_what_they_lead_to() {
        for (path, route) in [
            ("/", Route::Page),
            ("/builds/abc", Route::Page),
            ("/cas/tree/sha256/00/1", Route::Page),
            ("/cas/00", Route::Cache),
            ("/some/instance/ac/00", Route::Cache),
            ("/api/v1/status", Route::Api),
            ("/metrics", Route::Metrics),
            ("/v2/app/cas/manifests/v1", Route::Registry),
            ("/metrics2", Route::Other),
        ] {
            assert_eq!(Route::of(path), route, "{path}");
        }
    }

    #[test]
    fn each_class_stands_at_its_own_place() {
        for (index, (route, _)) in ROUTES.iter().enumerate() {
            assert_eq!(*route as usize, index);
        }
        assert_eq!(status_place(200), 0);
        assert_eq!(status_place(799), STATUSES.len());
    }
}
