//! A recorder of metrics that tests look into.

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Every series with its value; gauges as the bits of an f64.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>);

impl Seen {
    /// Names and labels of all series.
    #[allow(dead_code)] // for one of the test programs
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().keys().cloned().collect()
    }

    fn series(&self, key: &Key) -> Arc<AtomicU64> {
        let labels = key.labels().map(|label| format!(" {}={}", label.key(), label.value())).collect::<String>();
        self.0.lock().unwrap().entry(format!("{}{labels}", key.name())).or_default().clone()
    }

    pub(crate) fn count(&self, series: &str) -> u64 {
        self.0.lock().unwrap().get(series).map_or(0, |value| value.load(Ordering::SeqCst))
    }

    pub(crate) fn level(&self, series: &str) -> f64 {
        f64::from_bits(self.count(series))
    }
}

impl Recorder for Seen {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.series(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.series(key))
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
