//! Every set of features, on two processors.

use super::Judged;
use std::fmt::Debug;

/// Judges `judge` of every one of `sets`, from two threads; how much was judged in all.
///
/// # Errors
/// That of the first set that `judge` refuses, with the set.
///
/// # Panics
/// If `judge` does.
pub fn every_set<S: Debug + Sync>(sets: &[S], judge: impl Fn(&S) -> Judged + Sync) -> Judged {
    let half = |from: usize| {
        let sets = sets.iter().skip(from).step_by(2);
        sets.map(|set| judge(set).map_err(|wrong| format!("{set:?}: {wrong}"))).sum::<Judged>()
    };
    std::thread::scope(|scope| {
        let odd = scope.spawn(|| half(1));
        let even = half(0)?;
        Ok(even + odd.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_is_judged_once_and_a_refused_one_named() {
        for number in 0..5 {
            let sets: Vec<u64> = (0..number).collect();
            assert_eq!(every_set(&sets, |set| Ok(1 << set)), Ok((1 << number) - 1));
        }
        let judged = every_set(&[1, 2, 3], |set| if *set == 2 { Err("wrong".into()) } else { Ok(1) });
        assert_eq!(judged, Err("2: wrong".into()));
    }
}
