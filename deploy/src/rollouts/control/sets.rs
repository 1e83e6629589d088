//! Two sets of targets: which one serves is what the balancer says; the other gets the release.

use std::collections::{BTreeMap, BTreeSet};

use super::Control;
use super::error::ControlError;
use super::kept::{Rollout, Sets};
use crate::rollouts::parts::{Place, Split, Target};
use crate::rollouts::plan::{self, Declared};

impl Sets {
    /// Why there is no room for both versions, in words.
    pub fn lacks(&self) -> Option<String> {
        let Self { live, live_targets, idle, idle_targets, heard, needed, .. } = self;
        (heard < needed).then(|| {
            format!(
                "there is no room for both versions: {live}, which serves, has {live_targets} targets, \
                 and of the {idle_targets} of {idle} {heard} answer, where capacity demands {needed}"
            )
        })
    }
}

/// Targets by the value of a label, of which there have to be two.
fn coloured(listed: Vec<Target>, label: &str) -> Result<[(String, Vec<Target>); 2], ControlError> {
    let unfit = ControlError::Unfit;
    let mut sets: BTreeMap<String, Vec<Target>> = BTreeMap::new();
    for target in listed {
        let colour = target.labels.get(label).cloned();
        let none = || unfit(format!("the target {} has no label {label}", target.name));
        sets.entry(colour.ok_or_else(none)?).or_default().push(target);
    }
    let names: Vec<&str> = sets.keys().map(String::as_str).collect();
    let two =
        format!("there have to be two sets, and the label {label} says: {}", names.join(", "));
    let mut sets = sets.into_iter();
    match (sets.next(), sets.next(), sets.next()) {
        (Some(one), Some(other), None) => Ok([one, other]),
        _ => Err(unfit(two)),
    }
}

/// The colours of those that get requests, of the targets that are known.
fn serving(split: &Split, targets: &[Target], label: &str) -> BTreeSet<String> {
    let colours: BTreeMap<&str, &String> =
        targets.iter().filter_map(|it| Some((it.name.as_str(), it.labels.get(label)?))).collect();
    let asked = split.pools.iter().filter(|pool| pool.share > 0.0);
    let members = asked.flat_map(|pool| &pool.members);
    members.filter_map(|it| colours.get(it.name.as_str()).map(|it| (*it).clone())).collect()
}

impl Control {
    /// The colour that the balancer sends requests to; `None`: it says nothing about these targets.
    async fn live(
        &self,
        (declared, place): (&Declared, &Place),
        targets: &[Target],
        label: &str,
    ) -> Result<Option<String>, ControlError> {
        let name = declared.driving.traffic.as_ref();
        let Some((name, traffic)) = name.and_then(|it| Some((it, self.parts.traffic.get(it)?)))
        else {
            return Ok(None);
        };
        let observed = traffic.observe(place).await.map_err(|source| ControlError::Part {
            what: format!("the balancer {name:?}"),
            source,
        })?;
        let Some(split) = observed else { return Ok(None) };
        let mut colours = serving(&split, targets, label).into_iter();
        match (colours.next(), colours.next()) {
            (one, None) => Ok(one),
            (_, Some(_)) => Err(ControlError::Refused(format!(
                "{name:?} sends requests to both sets of {place}: have it send all to one (`kiln rollout traffic`)"
            ))),
        }
    }

    /// The targets of both, the idle ones first, and which is which.
    pub(super) async fn two_sets(
        &self,
        declared: &Declared,
        sets: &plan::Sets,
        place: &Place,
        listed: Vec<Target>,
    ) -> Result<(Vec<Target>, Sets), ControlError> {
        let label = &sets.colour;
        let seen = self.live((declared, place), &listed, label).await?;
        let [one, other] = coloured(listed, label)?;
        let live = seen.or_else(|| sets.live.clone());
        let ((live, serve), (idle, beside)) = match live {
            Some(live) if live == one.0 => (one, other),
            Some(live) if live == other.0 => (other, one),
            Some(live) => {
                let text = format!("live: no target's label {label} is {live:?}");
                return Err(ControlError::Unfit(text));
            }
            None => {
                let (one, other) = (&one.0, &other.0);
                let text = format!(
                    "nobody knows whether {one} or {other} serves {place}: say live = {one:?} or live = {other:?}"
                );
                return Err(ControlError::Unfit(text));
            }
        };
        if declared.targets.count() != beside.len() {
            let (said, has) = (declared.targets.count(), beside.len());
            let text =
                format!("the declaration says {said} targets, and {idle} has {has} of {place}");
            return Err(ControlError::Unfit(text));
        }
        let names: Vec<String> = beside.iter().map(|it| it.name.clone()).collect();
        let heard = self.seen(declared, place, &names).await?.iter().flatten().count();
        let share = u64::try_from(serve.len()).unwrap_or(u64::MAX).saturating_mul(sets.capacity);
        let found = Sets {
            label: label.clone(),
            live,
            live_targets: serve.len(),
            idle,
            idle_targets: beside.len(),
            heard,
            needed: usize::try_from(share.div_ceil(100)).unwrap_or(usize::MAX),
        };
        let targets = beside.into_iter().chain(serve).collect();
        Ok((targets, found))
    }

    /// Why the set that is to get the release is not the idle one any more; `None`: it is, or there are no sets.
    pub(super) async fn serves_another(
        &self,
        rollout: &Rollout,
        declared: &Declared,
        targets: &[Target],
    ) -> Result<Option<String>, ControlError> {
        let Some(sets) = &rollout.sets else { return Ok(None) };
        let live = self.live((declared, &rollout.place), targets, &sets.label).await?;
        let other = live.filter(|it| *it != sets.live);
        Ok(other.map(|it| format!("{it} serves by now, and not {}", sets.live)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &str, colour: Option<&str>) -> Target {
        let labels = colour.map(|it| ("slot".to_owned(), it.to_owned())).into_iter().collect();
        Target { name: name.to_owned(), address: None, labels }
    }

    #[test]
    fn there_are_two_sets_or_it_is_said_what_there_is() {
        let two = vec![target("b", Some("green")), target("a", Some("blue"))];
        let [one, other] = coloured(two, "slot").unwrap();
        assert_eq!((one.0.as_str(), other.0.as_str()), ("blue", "green"));
        for (targets, part) in [
            (vec![target("a", None)], "the target a has no label slot"),
            (vec![target("a", Some("blue"))], "the label slot says: blue"),
            (["x", "y", "z"].map(|it| target(it, Some(it))).to_vec(), "says: x, y, z"),
        ] {
            let error = coloured(targets, "slot").unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
