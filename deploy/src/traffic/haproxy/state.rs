//! What HAProxy says of its servers (management guide, `show servers state`): a version, the names of the columns, then
//! a line for each server.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// A server as it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    address: String,
    port: String,
    /// The name that the address was found under; `-`: none.
    host: String,
    pub weight: u32,
}

impl Running {
    /// Whether requests go to this `host:port`.
    pub fn is_at(&self, address: &str) -> bool {
        let Some((host, port)) = address.rsplit_once(':') else { return false };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let same = |known: &str| match (known.parse::<IpAddr>(), host.parse::<IpAddr>()) {
            (Ok(one), Ok(other)) => one == other,
            _ => known.eq_ignore_ascii_case(host),
        };
        self.port == port && (same(&self.address) || same(&self.host))
    }
}

/// The servers of a backend by their names; `None`: there is no such backend. `Err`: this is no such answer.
pub fn running(answer: &str, backend: &str) -> Result<Option<BTreeMap<String, Running>>, String> {
    if answer.starts_with("Can't find backend") {
        return Ok(None);
    }
    let mut lines = answer.lines().map(str::trim).filter(|line| !line.is_empty());
    let strange = |what: &str| {
        let start: String = answer.chars().take(80).collect();
        format!("the answer to `show servers state` is not understood ({what}): {start:?}")
    };
    if lines.next() != Some("1") {
        return Err(strange("version 1 is"));
    }
    let columns = lines.next().and_then(|line| line.strip_prefix("# "));
    let columns: Vec<_> = columns.ok_or_else(|| strange("no columns"))?.split(' ').collect();
    let at = |name: &str| {
        columns.iter().position(|it| *it == name).ok_or_else(|| strange(&format!("no {name}")))
    };
    let [of, name, address, port, host, weight] = [
        at("be_name")?,
        at("srv_name")?,
        at("srv_addr")?,
        at("srv_port")?,
        at("srv_fqdn")?,
        at("srv_uweight")?,
    ];
    let mut servers = BTreeMap::new();
    for line in lines {
        let cells: Vec<_> = line.split(' ').collect();
        let cell = |at: usize| cells.get(at).copied().ok_or_else(|| strange("a short line"));
        if cell(of)? != backend {
            continue;
        }
        let weight = cell(weight)?.parse().map_err(|_| strange("a weight"))?;
        let owned = |at| cell(at).map(str::to_owned);
        let server =
            Running { address: owned(address)?, port: owned(port)?, host: owned(host)?, weight };
        servers.insert(owned(name)?, server);
    }
    Ok(Some(servers))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer of HAProxy 2.6.
    const ANSWER: &str = "1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight \
srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state \
bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr \
srv_agent_addr srv_agent_port
3 api.prod 1 a 127.0.0.1 2 0 9 9 4 1 0 0 0 0 0 0 - 8001 - 0 0 - - 0
3 api.prod 2 b 10.0.0.2 2 0 1 1 4 1 0 0 0 0 0 0 web.example 8002 - 0 0 - - 0
3 api.prod 3 c ::1 2 0 0 1 4 1 0 0 0 0 0 0 - 8003 - 0 0 - - 0

";

    #[test]
    fn servers_are_read_with_their_weights() {
        let servers = running(ANSWER, "api.prod").unwrap().unwrap();
        let weights: Vec<_> = servers.iter().map(|(name, it)| (name.as_str(), it.weight)).collect();
        assert_eq!(weights, [("a", 9), ("b", 1), ("c", 0)]);
        assert!(servers["a"].is_at("127.0.0.1:8001") && !servers["a"].is_at("127.0.0.1:8002"));
        assert!(servers["b"].is_at("WEB.example:8002") && servers["c"].is_at("[0::1]:8003"));
    }

    #[test]
    fn what_is_not_understood_is_told() {
        assert_eq!(running("Can't find backend.\n", "x"), Ok(None));
        for bad in ["", "Permission denied\n", "2\n# be_name\n", "1\n# be_name srv_name\n"] {
            assert!(running(bad, "x").is_err(), "{bad:?}");
        }
        let short = ANSWER.replace(" web.example 8002 - 0 0 - - 0", "");
        assert!(running(&short, "api.prod").is_err());
    }
}
