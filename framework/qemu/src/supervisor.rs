//! A program that does not outlive this process, however this process ends.
//!
//! Linux tells a child of its parent's death only where the child asked for it, and QEMU (before 10.2) does not. So a shell
//! stands between: it waits for the program, and for the end of a pipe whose other end is here. The system closes that
//! end with this process, killed or not.

use std::process::{Command, Stdio};

/// The program is its arguments. `read` returns at the end of the pipe; what runs behind `&` has no input of its own in
/// a shell, so the pipe becomes file 3 first.
const SCRIPT: &str = r#"
    exec 3<&0 </dev/null
    command -v "$1" >/dev/null || exit 127
    "$@" 3<&- & program=$!
    (read -r _ <&3; kill -9 "$program") & watch=$!
    exec 3<&-
    wait "$program"; status=$?
    kill "$watch" 2>/dev/null
    exit "$status"
"#;

/// What a shell says of a program that there is not.
pub(crate) const MISSING: i32 = 127;

/// `program`, for whom arguments are still to be added. It is killed as soon as nobody has its standard input any more.
pub(crate) fn supervised(program: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", SCRIPT, "sh", program]).stdin(Stdio::piped());
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::time::{Duration, Instant};

    const LIMIT: Duration = Duration::from_secs(60);

    /// Says its process number, and stays.
    const STAYS: [&str; 2] = ["-c", "echo pid $$; exec sleep 1000"];

    /// Its status, when it ends by itself.
    fn run(command: &mut Command) -> Option<i32> {
        let mut child = command.spawn().unwrap();
        // Waiting would close it, which ends the program.
        let held = child.stdin.take();
        let status = child.wait().unwrap();
        drop(held);
        status.code()
    }

    fn pid(of: impl std::io::Read) -> u32 {
        let said = BufReader::new(of).lines().map_while(Result::ok);
        said.into_iter().find_map(|line| line.split_once("pid ")?.1.trim().parse().ok()).expect("it says its number")
    }

    fn is_gone(pid: u32) -> bool {
        let until = Instant::now() + LIMIT;
        // Behind the name in brackets is the state; nobody may have fetched its status yet.
        let lives = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
        };
        while lives() && Instant::now() < until {
            std::thread::yield_now();
        }
        !lives()
    }

    #[test]
    fn it_ends_with_its_standard_input() {
        let mut child = supervised("sh").args(STAYS).stdout(Stdio::piped()).spawn().unwrap();
        let pid = pid(child.stdout.take().unwrap());
        drop(child.stdin.take());
        assert_eq!(child.wait().unwrap().code(), Some(128 + 9));
        assert!(is_gone(pid));
    }

    #[test]
    fn its_status_is_the_programs() {
        assert_eq!(run(supervised("sh").args(["-c", "exit 3"])), Some(3));
        assert_eq!(run(&mut supervised("viommu-no-such-program")), Some(MISSING));
    }

    /// The parent of [`a_killed_parent_leaves_nothing_behind`]: this test binary, started by that test.
    #[test]
    #[ignore = "stays until it is killed"]
    fn parent() {
        run(supervised("sh").args(STAYS));
    }

    #[test]
    fn a_killed_parent_leaves_nothing_behind() {
        let this = std::env::current_exe().unwrap();
        let mut parent = Command::new(this);
        parent.args(["supervisor::tests::parent", "--exact", "--ignored", "--nocapture"]).stdout(Stdio::piped());
        let mut parent = parent.spawn().unwrap();
        let pid = pid(parent.stdout.take().unwrap());
        assert!(std::fs::exists(format!("/proc/{pid}")).unwrap());
        parent.kill().unwrap();
        parent.wait().unwrap();
        assert!(is_gone(pid), "process {pid} outlived its parent");
    }
}
