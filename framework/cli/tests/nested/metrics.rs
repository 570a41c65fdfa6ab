//! `--metrics`: Prometheus text over HTTP while a replay runs.

use crate::run::{command, replay};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;

/// The page at this moment; `None` while nobody listens.
fn page(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// The value of a metric, all its series together.
fn sum(page: &str, metric: &str) -> f64 {
    let series = page.lines().filter_map(|line| line.strip_prefix(metric)).filter(|rest| rest.starts_with(['{', ' ']));
    series.filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

#[test]
fn metrics_are_served_while_it_runs() {
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let traces = ["arm73-strict-blk", "arm73-ats-strict", "arm73-many-lazy"];
    let mut command = command(&["--vms", "2", "--metrics", &address.to_string()], &traces);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let counters = ["viommu_doorbells_total", "viommu_commands_total", "viommu_shard_batches_total", "viommu_objects"];
    let found = loop {
        let text = page(address).unwrap_or_default();
        if counters.iter().all(|name| sum(&text, name) > 0.0) {
            break text;
        }
        if child.try_wait().unwrap().is_some() {
            panic!("it ended before its metrics were seen; the last page was {text:?}");
        }
        std::thread::yield_now();
    };
    assert!(found.starts_with("HTTP/1.1 200"), "{found}");
    for line in ["# TYPE viommu_doorbells_total counter", "# TYPE viommu_objects gauge", "# HELP viommu_objects "] {
        assert!(found.contains(line), "{line:?} is not in {found}");
    }
    assert!(found.contains(r#"vendor="arm-smmuv3""#) && found.contains(r#"class="tlb""#), "{found}");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(page(address).is_none(), "nobody serves after the end");
}

#[test]
fn an_address_that_is_taken_is_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run = replay(&["--metrics", &address], &["arm73-boot"]);
    assert_eq!(run.status, 2, "{}", run.stderr);
    assert!(run.stderr.contains(&address) && run.lines.is_empty(), "{}", run.stderr);
}
