//! What a server says of itself when a connection to it is made (`INFO`).

/// The oldest version that has functions.
const FUNCTIONS: (u32, u32) = (7, 0);
/// The oldest version that has what the scripts and commands need (GETEX; TIME before writes).
const OLDEST: (u32, u32) = (6, 2);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) cluster: bool,
    /// It follows another server and takes no writes.
    pub(super) replica: bool,
    /// Its version has libraries of functions.
    pub(super) functions: bool,
    /// Names what it knows, in this process of the server: another process at the same address has
    /// another name, and so has one that followed another server meanwhile and is a master again.
    pub(super) incarnation: String,
    /// Settings that may lose data, in words for the log.
    pub(super) warnings: Vec<String>,
}

/// Refuses servers that cannot keep what they are given, and says what to do.
pub(super) fn inspect(info: &str) -> Result<Server, String> {
    let field = |name: &str| {
        info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    let version = field("redis_version").unwrap_or("unknown");
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    let known = (numbers.next(), numbers.next());
    if let (Some(major), Some(minor)) = known
        && (major, minor) < OLDEST
    {
        return Err(format!(
            "its version is {version}; {}.{} or newer is needed",
            OLDEST.0, OLDEST.1
        ));
    }
    let mut warnings = Vec::new();
    let limited = field("maxmemory").is_some_and(|bytes| bytes != "0");
    let policy = field("maxmemory_policy").unwrap_or("noeviction");
    if policy.starts_with("allkeys") {
        return Err(format!(
            "its maxmemory-policy is {policy}: it would drop records and promised blobs; \
             set it to noeviction"
        ));
    }
    if limited && policy != "noeviction" {
        warnings.push(format!(
            "maxmemory-policy is {policy}: action results and cached blobs may be dropped \
             before their time; noeviction is the safe setting"
        ));
    }
    if field("aof_enabled") == Some("0") {
        warnings.push(
            "appendonly is off: a restart loses what was written since the last snapshot; \
             set appendonly yes"
                .to_owned(),
        );
    }
    let functions = matches!(known, (Some(major), Some(minor)) if (major, minor) >= FUNCTIONS);
    Ok(Server {
        functions,
        cluster: field("redis_mode") == Some("cluster") || field("cluster_enabled") == Some("1"),
        replica: field("role") == Some("slave"),
        incarnation: ["run_id", "master_replid"].map(|it| field(it).unwrap_or_default()).join("/"),
        warnings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(lines: &[&str]) -> Result<Server, String> {
        inspect(&lines.join("\r\n"))
    }

    #[test]
    fn old_and_forgetful_servers_are_refused() {
        let old = info(&["# Server", "redis_version:6.0.16"]).unwrap_err();
        assert!(old.contains("6.0.16") && old.contains("6.2"), "{old}");
        assert!(info(&["redis_version:5.9"]).is_err());
        let policy = ["redis_version:7.0.15", "maxmemory:0", "maxmemory_policy:allkeys-lru"];
        assert!(info(&policy).unwrap_err().contains("noeviction"));
    }

    #[test]
    fn what_may_lose_data_is_warned_of() {
        let good = [
            "redis_version:10.0.1",
            "run_id:a1",
            "maxmemory_policy:noeviction",
            "aof_enabled:1",
            "master_replid:b2",
        ];
        let server = info(&good).unwrap();
        assert_eq!(
            server,
            Server {
                cluster: false,
                replica: false,
                functions: true,
                incarnation: "a1/b2".to_owned(),
                warnings: Vec::new()
            }
        );
        let risky = [
            "redis_version:6.2.0",
            "redis_mode:cluster",
            "maxmemory:100",
            "maxmemory_policy:volatile-lru",
            "aof_enabled:0",
            "role:slave",
        ];
        let server = info(&risky).unwrap();
        assert!(server.cluster && server.replica && !server.functions);
        assert_eq!(server.warnings.len(), 2);
    }
}
