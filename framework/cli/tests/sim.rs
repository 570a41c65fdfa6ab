//! `viommu sim` from outside: the verdict, the exit status, the log, a failing seed.

#![forbid(unsafe_code)]

use std::process::{Command, Output};

fn sim(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_viommu")).arg("sim").args(args).output().expect("viommu runs")
}

fn last_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned()
}

#[test]
fn passing_seeds_end_in_a_verdict() {
    let output = sim(&["--seeds", "12", "--first", "30"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        last_line(&output).starts_with("sim: 12 seeds passed (30..42: arm-smmuv3 4, amd-vi 4, intel-vtd 4), "),
        "{}",
        last_line(&output)
    );
}

#[test]
fn the_same_seeds_write_the_same_log_on_any_number_of_threads() {
    let log = |threads| sim(&["--seeds", "4", "--threads", threads, "--log", "-"]).stdout;
    let without_time = |log: Vec<u8>| {
        let text = String::from_utf8(log).expect("text");
        let (log, _time) = text.rsplit_once(", ").expect("a verdict");
        log.to_owned()
    };
    let one = without_time(log("1"));
    assert!(one.lines().count() > 1000, "a log that says something");
    assert_eq!(one, without_time(log("3")));
}

#[test]
fn what_is_broken_on_purpose_fails_with_the_shortest_story_and_how_to_repeat_it() {
    let output = sim(&["--seeds", "60", "--inject", "drop-invalidation"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("failed: stale: "), "{text}");
    assert!(text.contains("to repeat it: viommu sim --vendor "), "{text}");
    assert!(last_line(&output).contains("of 60 seeds failed"), "{}", last_line(&output));
}

#[test]
fn bad_use_is_refused() {
    for args in [&["--seeds", "0"][..], &["--seeds", "3", "--first", "18446744073709551615"], &["--inject", "nothing"]]
    {
        assert_eq!(sim(args).status.code(), Some(2), "{args:?}");
    }
}
