//! An environment as a network namespace of this machine: what runs in it reaches itself alone.

use super::recipe::{Address, Recipe, Step, Which};

/// What runs in each namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Netns {
    /// A program with its arguments that starts everything in the namespace and then ends: what it leaves running stays.
    pub run: Vec<String>,
    /// A program that says, in the namespace, whether it answers.
    pub check: Vec<String>,
    /// The address at which an environment answers, seen from inside: `http://127.0.0.1:8080`. Tests enter by
    /// `ip netns exec {name}`.
    pub address: String,
}

/// Makes the namespace `$1` unless it is there.
const MAKE: &str = "[ \"$(id -u)\" = 0 ] || { echo 'network namespaces need root (CAP_SYS_ADMIN, CAP_NET_ADMIN)' >&2; exit 1; }; \
                    command -v ip >/dev/null || { echo 'there is no program ip: install iproute2' >&2; exit 1; }; \
                    [ -e \"/run/netns/$1\" ] || ip netns add \"$1\"; ip -n \"$1\" link set lo up";
/// Ends everything in the namespace `$1`, and removes the namespace. What does not end in time is killed.
const END: &str = "[ -e \"/run/netns/$1\" ] || exit 0; \
                   for signal in TERM TERM TERM KILL KILL; do \
                   left=$(ip netns pids \"$1\"); [ -n \"$left\" ] || break; \
                   kill -\"$signal\" $left 2>/dev/null || true; sleep 0.3; done; ip netns delete \"$1\"";

fn shell(script: &str, name: &str) -> Step {
    Step::new(["sh", "-euc", script, "sh", name])
}

impl Netns {
    pub fn recipe(&self, which: &Which<'_>) -> Recipe {
        // In a session of its own: what it leaves running does not end with it, as it would in the group of the step.
        let inside = |argv: &[String]| {
            let mut step = Step::new(["ip", "netns", "exec", which.name, "setsid", "--wait"]);
            step.argv.extend_from_slice(argv);
            (!argv.is_empty()).then_some(step)
        };
        let mut up = vec![shell(MAKE, which.name)];
        up.extend(inside(&self.run));
        Recipe {
            up,
            check: inside(&self.check).into_iter().collect(),
            down: vec![shell(END, which.name)],
            list: Some(Step::new(["ip", "netns", "list"])),
            address: Address::Template(self.address.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Time;

    #[test]
    fn everything_runs_in_the_namespace_and_ends_with_it() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let netns = Netns {
            run: words("/bin/start all"),
            check: words("/bin/ask"),
            address: String::new(),
        };
        let which = Which { name: "kiln-a-n-1", prefix: "kiln-a-", run: "r", expires: Time(0) };
        let recipe = netns.recipe(&which);
        assert_eq!(
            recipe.up[1].argv.join(" "),
            "ip netns exec kiln-a-n-1 setsid --wait /bin/start all"
        );
        assert_eq!(
            recipe.check[0].argv.join(" "),
            "ip netns exec kiln-a-n-1 setsid --wait /bin/ask"
        );
        assert_eq!(recipe.down[0].argv.last().unwrap(), "kiln-a-n-1");
        assert!(Netns::default().recipe(&which).check.is_empty());
    }
}
