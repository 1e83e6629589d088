//! An environment as a namespace of Kubernetes: what is generated, and what kubectl is asked for.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::recipe::{Address, Recipe, Step, Which};

/// What Kiln says of a namespace.
const OWNER: &str = "kiln.build/owner";
const RUN: &str = "kiln.build/run";
const EXPIRES: &str = "kiln.build/expires";
const MANAGED: &str = "app.kubernetes.io/managed-by";

/// A cluster, and what is put into each namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubernetes {
    /// The program `kubectl`: a name or a path.
    pub kubectl: String,
    /// A context of its configuration; `None`: the current one.
    pub context: Option<String>,
    /// A file or a folder of manifests without a namespace of their own.
    pub manifests: PathBuf,
    /// Most of what all of a namespace may ask for, as ResourceQuota names it: `limits.cpu`, `limits.memory`, `pods`.
    pub quota: Vec<(String, String)>,
    /// The address at which an environment answers: `http://web.{name}.svc:8080`.
    pub address: String,
    /// Seconds within which the deployments of an environment have to be available.
    pub ready_s: u64,
}

impl Kubernetes {
    fn kubectl(&self, arguments: &[&str]) -> Step {
        let mut argv = vec![self.kubectl.clone()];
        // In one argument each: a context that begins with `-` is no option.
        argv.extend(self.context.iter().map(|it| format!("--context={it}")));
        argv.extend(arguments.iter().map(|it| (*it).to_owned()));
        Step { argv, stdin: None }
    }

    pub fn recipe(&self, which: &Which<'_>) -> Recipe {
        let (name, namespace) = (which.name, format!("--namespace={}", which.name));
        let manifests = format!("--filename={}", self.manifests.display());
        let timeout = format!("--timeout={}s", self.ready_s);
        let owned = format!("--selector={OWNER}={}", owner(which.prefix));
        Recipe {
            up: vec![
                self.kubectl(&["apply", "--filename=-"]).reading(self.manifest(which).to_string()),
                self.kubectl(&["apply", &namespace, &manifests]),
                self.kubectl(&[
                    "wait",
                    &namespace,
                    "--for=condition=Available",
                    "deployment",
                    "--all",
                    &timeout,
                ]),
            ],
            check: vec![self.kubectl(&[
                "wait",
                &namespace,
                "--for=condition=Available",
                "deployment",
                "--all",
                "--timeout=5s",
            ])],
            down: vec![self.kubectl(&[
                "delete",
                "namespace",
                name,
                "--ignore-not-found=true",
                "--wait=true",
            ])],
            list: Some(self.kubectl(&["get", "namespaces", &owned, "--output=name"])),
            address: Address::Template(self.address.clone()),
        }
    }

    /// The namespace and its quota, as one list.
    pub fn manifest(&self, which: &Which<'_>) -> Value {
        let namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": which.name,
                "labels": {
                    OWNER: owner(which.prefix),
                    RUN: label(which.run),
                    MANAGED: "kiln",
                },
                // In seconds since the Unix epoch: what cleans clusters up goes by it where this server is gone for good.
                "annotations": { EXPIRES: (which.expires.0 / 1_000).to_string() },
            },
        });
        let hard: serde_json::Map<String, Value> = self
            .quota
            .iter()
            .map(|(name, most)| (name.clone(), Value::from(most.as_str())))
            .collect();
        let quota = json!({
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": { "name": "kiln-preview", "namespace": which.name },
            "spec": { "hard": hard },
        });
        let mut items = vec![namespace];
        if !self.quota.is_empty() {
            items.push(quota);
        }
        json!({ "apiVersion": "v1", "kind": "List", "items": items })
    }
}

/// The prefix without what is no part of a label.
fn owner(prefix: &str) -> String {
    prefix.trim_matches('-').to_owned()
}

/// A text as the value of a label: 63 characters, of which the first and the last are letters or digits.
fn label(text: &str) -> String {
    let plain = |it: char| if it.is_ascii_alphanumeric() || "-_.".contains(it) { it } else { '-' };
    let cut: String = text.chars().map(plain).take(63).collect();
    cut.trim_matches(|it: char| !it.is_ascii_alphanumeric()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Time;

    fn cluster() -> Kubernetes {
        Kubernetes {
            kubectl: "kubectl".to_owned(),
            context: Some("test".to_owned()),
            manifests: "/etc/kiln/web".into(),
            quota: vec![("pods".to_owned(), "20".to_owned())],
            address: "http://web.{name}.svc".to_owned(),
            ready_s: 300,
        }
    }

    fn which() -> Which<'static> {
        Which { name: "kiln-ab-web-1", prefix: "kiln-ab-", run: "r/1 x", expires: Time(7_500) }
    }

    #[test]
    fn a_namespace_says_whose_it_is_and_until_when() {
        let list = cluster().manifest(&which());
        let namespace = &list["items"][0];
        assert_eq!(namespace["metadata"]["name"], "kiln-ab-web-1");
        assert_eq!(namespace["metadata"]["labels"]["kiln.build/owner"], "kiln-ab");
        assert_eq!(namespace["metadata"]["labels"]["kiln.build/run"], "r-1-x");
        assert_eq!(namespace["metadata"]["annotations"]["kiln.build/expires"], "7");
        assert_eq!(list["items"][1]["spec"]["hard"]["pods"], "20");
        assert_eq!(list["items"][1]["metadata"]["namespace"], "kiln-ab-web-1");
        let without = Kubernetes { quota: Vec::new(), ..cluster() };
        assert_eq!(without.manifest(&which())["items"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn kubectl_is_asked_for_one_namespace_alone() {
        let recipe = cluster().recipe(&which());
        let all = recipe.up.iter().chain(&recipe.check).chain(&recipe.down);
        for step in all {
            assert_eq!(&step.argv[..2], ["kubectl", "--context=test"]);
            let names = step.argv.iter().any(|it| it.contains("kiln-ab-web-1"));
            assert!(names || step.stdin.as_ref().is_some_and(|it| it.contains("kiln-ab-web-1")));
        }
        let down = recipe.down[0].argv.join(" ");
        assert!(
            down.ends_with("delete namespace kiln-ab-web-1 --ignore-not-found=true --wait=true")
        );
        let list = recipe.list.unwrap().argv.join(" ");
        assert!(list.contains("--selector=kiln.build/owner=kiln-ab "), "{list}");
    }

    #[test]
    fn labels_are_what_kubernetes_takes() {
        assert_eq!(label("-a/b_"), "a-b");
        assert_eq!(label(&"x".repeat(80)).len(), 63);
    }
}
