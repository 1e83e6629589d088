//! An environment as a namespace of Kubernetes: what is generated, and what kubectl is asked for.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::recipe::{Address, Recipe, Step, Which};

/// What Kiln says of a namespace.
const OWNER: &str = "kiln.build/owner";
const RUN: &str = "kiln.build/run";
const EXPIRES: &str = "kiln.build/expires";
const MANAGED: &str = "app.kubernetes.io/managed-by";
/// What may follow the number of a quantity, beside an exponent.
const UNITS: [&str; 16] =
    ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

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

/// Whether a quota may have this resource and this quantity, as Kubernetes writes them: `limits.memory` and `4Gi`,
/// `count/deployments.apps` and `20`. A cluster refuses others only when an environment comes up.
pub fn is_quota(resource: &str, quantity: &str) -> bool {
    let plain = |it: char| it.is_ascii_alphanumeric() || "-_./".contains(it);
    let at_ends = |it: char| it.is_ascii_alphanumeric();
    resource.starts_with(at_ends)
        && resource.ends_with(at_ends)
        && resource.chars().all(plain)
        && is_quantity(quantity)
}

/// Whether a text is a quantity that is not below zero.
fn is_quantity(text: &str) -> bool {
    let in_number = |it: char| it.is_ascii_digit() || it == '.';
    let end = text.find(|it: char| !in_number(it)).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let is_number = number.contains(|it: char| it.is_ascii_digit());
    let exponent = unit.strip_prefix(['e', 'E']).unwrap_or_default();
    let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let is_exponent = !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit());
    is_number && number.matches('.').count() <= 1 && (UNITS.contains(&unit) || is_exponent)
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
    use crate::ephemeral::is_name;
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

    /// The fields that the published description of Kubernetes' API (v1) has for the objects that are made, each with what it
    /// holds. A cluster refuses all others.
    static FIELDS: [(&str, &[(&str, &str)]); 5] = [
        ("List", &[("apiVersion", "text"), ("kind", "text"), ("items", "objects")]),
        ("Namespace", &[("apiVersion", "text"), ("kind", "text"), ("metadata", "ObjectMeta")]),
        (
            "ResourceQuota",
            &[
                ("apiVersion", "text"),
                ("kind", "text"),
                ("metadata", "ObjectMeta"),
                ("spec", "ResourceQuotaSpec"),
            ],
        ),
        (
            "ObjectMeta",
            &[
                ("name", "name"),
                ("namespace", "name"),
                ("labels", "labels"),
                ("annotations", "texts"),
            ],
        ),
        ("ResourceQuotaSpec", &[("hard", "quantities")]),
    ];

    fn all(value: &Value, fits: impl Fn(&str, &str) -> bool) -> bool {
        let of_text = |(key, it): (&String, &Value)| it.as_str().is_some_and(|it| fits(key, it));
        value.as_object().is_some_and(|it| it.iter().all(of_text))
    }

    fn is_label(key: &str, value: &str) -> bool {
        let name = key.rsplit('/').next().unwrap_or_default();
        let part = |it: &str| it.len() <= 63 && label(it) == it;
        !name.is_empty() && part(name) && part(value)
    }

    /// Whether a value is what a field of this kind holds.
    fn fits(value: &Value, kind: &str) -> bool {
        let text = |is: fn(&str) -> bool| value.as_str().is_some_and(is);
        match kind {
            "text" => value.is_string(),
            "name" => text(is_name),
            "texts" => all(value, |_, _| true),
            "labels" => all(value, is_label),
            "quantities" => all(value, is_quota),
            "objects" => {
                let is_object = |it: &Value| fits(it, it["kind"].as_str().unwrap_or_default());
                value.as_array().is_some_and(|items| items.iter().all(is_object))
            }
            _ => {
                let known = FIELDS.iter().find(|(name, _)| *name == kind).map(|(_, fields)| fields);
                let known = |key: &str| known?.iter().find(|(name, _)| *name == key);
                let is_known = |(key, it): (&String, &Value)| {
                    known(key).is_some_and(|(_, kind)| fits(it, kind))
                };
                value.as_object().is_some_and(|it| it.iter().all(is_known))
            }
        }
    }

    #[test]
    fn what_is_generated_is_what_the_api_describes() {
        // The longest name that there can be: kinds have 20 characters at most.
        let name = format!("kiln-0123456789-{}-0123456789", "k".repeat(20));
        let longest = Which { name: &name, run: "-", ..which() };
        for which in [which(), longest] {
            let list = cluster().manifest(&which);
            assert!(fits(&list, "List"), "{list:#}");
            for item in list["items"].as_array().unwrap() {
                assert_eq!(item["apiVersion"], "v1");
            }
        }
        let list = cluster().manifest(&which());
        for (place, wrong) in [
            ("/items/0/metadata/labels/kiln.build~1run", json!("a b")),
            ("/items/0/metadata/annotations/kiln.build~1expires", json!(7)),
            ("/items/0/metadata/name", json!("Upper")),
            ("/items/1/spec/hard/pods", json!("20 GB")),
            ("/items/1/kind", json!("Quota")),
        ] {
            let mut list = list.clone();
            *list.pointer_mut(place).unwrap() = wrong;
            assert!(!fits(&list, "List"), "{place}");
        }
    }

    #[test]
    fn quotas_are_what_kubernetes_takes() {
        for fine in ["20", "4Gi", "500m", "1.5", "1e3", "2E+6", "0"] {
            assert!(is_quota("limits.memory", fine), "{fine}");
        }
        for odd in ["", "4 GB", "4GB", "-1", "Gi", "1.2.3", "1e", "four", "1e+"] {
            assert!(!is_quota("limits.memory", odd), "{odd}");
        }
        assert!(is_quota("count/deployments.apps", "1") && is_quota("pods", "1"));
        for odd in ["", "limits memory", "pods.", "/pods"] {
            assert!(!is_quota(odd, "1"), "{odd}");
        }
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
