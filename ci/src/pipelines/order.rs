//! An order in which nothing stands before what it needs.

use std::collections::VecDeque;

/// Indexes in such an order; of each, `needs` has the indexes that it needs. Errors: a circle, each one of which needs the next.
pub fn order(needs: &[Vec<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    let mut open: Vec<usize> = needs.iter().map(Vec::len).collect();
    let behind = behind(needs);
    let free = |(at, open): (usize, &usize)| (*open == 0).then_some(at);
    let mut ready: VecDeque<usize> = open.iter().enumerate().filter_map(free).collect();
    let mut order = Vec::with_capacity(needs.len());
    while let Some(at) = ready.pop_front() {
        order.push(at);
        for next in behind.get(at).into_iter().flatten() {
            let Some(left) = open.get_mut(*next) else { continue };
            *left -= 1;
            if *left == 0 {
                ready.push_back(*next);
            }
        }
    }
    match order.len() == needs.len() {
        true => Ok(order),
        false => Err(circle(needs, &open)),
    }
}

/// For each stage the indexes of those that need it.
pub fn behind(needs: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut behind = vec![Vec::new(); needs.len()];
    for (at, needs) in needs.iter().enumerate() {
        for need in needs {
            if let Some(it) = behind.get_mut(*need) {
                it.push(at);
            }
        }
    }
    behind
}

/// Each that is left needs one that is left: whoever follows these comes back to where they were.
fn circle(needs: &[Vec<usize>], open: &[usize]) -> Vec<usize> {
    let is_open = |at: &usize| open.get(*at).is_some_and(|left| *left > 0);
    let Some(start) = (0..needs.len()).find(is_open) else { return Vec::new() };
    let mut seen = vec![None; needs.len()];
    let (mut path, mut at) = (Vec::new(), start);
    loop {
        match seen.get_mut(at) {
            Some(Some(first)) => return path.split_off(*first),
            Some(place) => *place = Some(path.len()),
            None => return path,
        }
        path.push(at);
        let next = needs.get(at).and_then(|all| all.iter().copied().find(is_open));
        match next {
            Some(next) => at = next,
            None => return path,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_circle_is_named_from_one_to_the_next() {
        let needs = [vec![], vec![0, 3], vec![1], vec![2], vec![3]];
        let circle = order(&needs).unwrap_err();
        assert_eq!(circle.len(), 3);
        for (at, next) in circle.iter().zip(circle.iter().cycle().skip(1)) {
            assert!(needs[*at].contains(next), "{at} needs {next}");
        }
        assert_eq!(order(&[vec![0]]).unwrap_err(), [0]);
        assert_eq!(order(&[vec![1], vec![]]).unwrap(), [1, 0]);
    }

    proptest! {
        #[test]
        fn nothing_stands_before_what_it_needs(
            needs in prop::collection::vec(prop::collection::vec(0usize..12, 0..4), 12)
        ) {
            match order(&needs) {
                Ok(order) => {
                    let place = |at: usize| order.iter().position(|it| *it == at).unwrap();
                    for (at, all) in needs.iter().enumerate() {
                        prop_assert!(all.iter().all(|need| place(*need) < place(at)));
                    }
                }
                Err(circle) => {
                    prop_assert!(!circle.is_empty());
                    for (at, next) in circle.iter().zip(circle.iter().cycle().skip(1)) {
                        prop_assert!(needs[*at].contains(next));
                    }
                }
            }
        }
    }
}
