//! A backend that obeys, writes down what it was asked, keeps the kernel's rules of who uses whom, and fails on request.

use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use viommu::Cause;
use viommu::backend::NestedAlloc;
use viommu::backend::{
    BackendEvent, BackendInfo, Batch, Host, Mapping, ObjectKind, Objects, Owner, Position, Sink, SinkError, SinkOf,
    ViommuAlloc,
};
use viommu::plugin::{EntryKey, HwQueueRequest, Register, TranslationMode};

#[derive(Default)]
struct Inner {
    last: u32,
    /// Kind and what it uses, by ID.
    objects: BTreeMap<u32, (ObjectKind, Vec<u32>)>,
    attached: BTreeMap<u32, u32>,
    log: Vec<String>,
}

pub(crate) struct Recorder {
    inner: Mutex<Inner>,
    calls: AtomicUsize,
    /// This call fails, counted from 1; 0 for none.
    fail: AtomicUsize,
    events: (flume::Sender<BackendEvent>, flume::Receiver<BackendEvent>),
    sink: Arc<Taken>,
}

/// Takes everything at once and remembers the words.
#[derive(Default)]
pub(crate) struct Taken {
    position: AtomicU64,
    words: Mutex<Vec<u64>>,
}

impl Sink for Taken {
    type Accepts = Host;

    fn submit(&self, batch: Batch<'_, Host>) -> Result<Position, SinkError> {
        self.words.lock().unwrap().extend_from_slice(batch.words.as_slice());
        Ok(Position(self.position.fetch_add(1, Ordering::SeqCst)))
    }
    fn wait(&self, _: Owner, _: Position) -> Result<(), SinkError> {
        Ok(())
    }
}

const NAMES: [(ObjectKind, &str); 9] = [
    (ObjectKind::Ioas, "IOAS"),
    (ObjectKind::NestParent, "NEST_PARENT"),
    (ObjectKind::Viommu, "VIOMMU"),
    (ObjectKind::NestedHwpt, "HWPT_NESTED"),
    (ObjectKind::Device, "DEVICE"),
    (ObjectKind::Vdevice, "VDEVICE"),
    (ObjectKind::HwQueue, "HW_QUEUE"),
    (ObjectKind::EventQueue, "VEVENTQ"),
    (ObjectKind::FaultQueue, "FAULT"),
];

impl Recorder {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            calls: AtomicUsize::new(0),
            fail: AtomicUsize::new(0),
            events: flume::bounded(16),
            sink: Arc::default(),
        })
    }

    /// The `nth` call from now on fails.
    pub(crate) fn fail_nth(&self, nth: usize) {
        self.fail.store(self.calls.load(Ordering::SeqCst) + nth, Ordering::SeqCst);
    }

    /// Whether the failing call was reached.
    pub(crate) fn failed(&self) -> bool {
        self.calls.load(Ordering::SeqCst) >= self.fail.load(Ordering::SeqCst)
    }

    /// What was asked since the last look.
    pub(crate) fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.inner().log)
    }

    /// What each device is attached to.
    pub(crate) fn attached(&self) -> BTreeMap<u32, u32> {
        self.inner().attached.clone()
    }

    pub(crate) fn report(&self, event: BackendEvent) {
        self.events.0.send(event).unwrap();
    }

    /// Host words that reached the queue since the last look.
    pub(crate) fn words(&self) -> Vec<u64> {
        std::mem::take(&mut self.sink.words.lock().unwrap())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Start of every call: its turn to fail?
    fn call(&self) -> Result<MutexGuard<'_, Inner>, Cause> {
        let nth = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if nth == self.fail.load(Ordering::SeqCst) {
            return Err(Cause::Os(std::io::Error::from_raw_os_error(5)));
        }
        Ok(self.inner())
    }

    fn create(&self, kind: ObjectKind, uses: &[u32]) -> Result<u32, Cause> {
        let mut inner = self.call()?;
        for used in uses {
            assert!(inner.objects.contains_key(used), "{kind} on object {used}, which is gone");
        }
        let id = inner.last + 1;
        // A vIOMMU comes with two HWPTs, whose numbers follow its own.
        inner.last = if kind == ObjectKind::Viommu { id + 2 } else { id };
        inner.objects.insert(id, (kind, uses.to_vec()));
        let name = NAMES.iter().find(|(of, _)| *of == kind).unwrap().1;
        inner.log.push(format!("+{name} {id}"));
        Ok(id)
    }
}

#[async_trait]
impl Objects for Recorder {
    fn describe(&self) -> BackendInfo {
        BackendInfo { name: "recorder", vendor: "any".into(), modes: 1, streams: 1 << 16, tags: 1 << 16 }
    }
    async fn ioas_alloc(&self) -> Result<u32, Cause> {
        self.create(ObjectKind::Ioas, &[])
    }
    async fn ioas_map(&self, ioas: u32, mapping: Mapping) -> Result<(), Cause> {
        self.call()?.log.push(format!("map {ioas} {:#x}", mapping.iova));
        Ok(())
    }
    async fn ioas_unmap(&self, ioas: u32, iova: u64, length: u64) -> Result<u64, Cause> {
        self.call()?.log.push(format!("unmap {ioas} {iova:#x}"));
        Ok(length)
    }
    async fn nest_parent_alloc(&self, ioas: u32) -> Result<u32, Cause> {
        self.create(ObjectKind::NestParent, &[ioas])
    }
    async fn viommu_alloc(&self, parent: u32) -> Result<ViommuAlloc, Cause> {
        let id = self.create(ObjectKind::Viommu, &[parent])?;
        Ok(ViommuAlloc { id, tag: 0x100 + id, abort: id + 1, bypass: id + 2 })
    }
    async fn device_bind(&self, _stream: u32) -> Result<u32, Cause> {
        self.create(ObjectKind::Device, &[])
    }
    async fn vdevice_alloc(&self, viommu: u32, device: u32, _virt_id: u32) -> Result<u32, Cause> {
        self.create(ObjectKind::Vdevice, &[viommu, device])
    }
    async fn nested_hwpt_alloc(&self, viommu: u32, _key: &EntryKey) -> Result<NestedAlloc, Cause> {
        Ok(NestedAlloc { id: self.create(ObjectKind::NestedHwpt, &[viommu])?, tag: None })
    }
    async fn attach(&self, device: u32, hwpt: u32) -> Result<(), Cause> {
        let mut inner = self.call()?;
        let before = inner.attached.insert(device, hwpt);
        assert_ne!(before, Some(hwpt), "the kernel ignores a replace by the same HWPT");
        inner.log.push(format!("attach {device} -> {hwpt}"));
        Ok(())
    }
    async fn reload(&self, device: u32) -> Result<(), Cause> {
        let mut inner = self.call()?;
        assert!(inner.attached.contains_key(&device), "nothing to reload");
        inner.log.push(format!("reload {device}"));
        Ok(())
    }
    async fn detach(&self, device: u32) -> Result<(), Cause> {
        let mut inner = self.call()?;
        inner.attached.remove(&device);
        inner.log.push(format!("detach {device}"));
        Ok(())
    }
    async fn event_queue_alloc(&self, viommu: u32) -> Result<u32, Cause> {
        self.create(ObjectKind::EventQueue, &[viommu])
    }
    async fn fault_queue_alloc(&self) -> Result<u32, Cause> {
        self.create(ObjectKind::FaultQueue, &[])
    }
    async fn hw_queue_alloc(&self, viommu: u32, _queue: &HwQueueRequest) -> Result<u32, Cause> {
        self.create(ObjectKind::HwQueue, &[viommu])
    }
    async fn flush(&self, viommu: u32) -> Result<(), Cause> {
        self.call()?.log.push(format!("flush {viommu}"));
        Ok(())
    }
    async fn destroy(&self, id: u32) -> Result<(), Cause> {
        let mut inner = self.call()?;
        let users = inner.objects.values().filter(|(_, uses)| uses.contains(&id)).count();
        let attached = inner.attached.iter().filter(|(device, hwpt)| **device == id || **hwpt == id).count();
        if users + attached > 0 {
            return Err(Cause::Busy { users: format!("{users} objects, {attached} attachments (backend)") });
        }
        inner.objects.remove(&id).ok_or(Cause::NoObject(id))?;
        inner.log.push(format!("-{id}"));
        Ok(())
    }
    fn live(&self) -> Vec<(u32, ObjectKind)> {
        self.inner().objects.iter().map(|(id, (kind, _))| (*id, *kind)).collect()
    }
    fn guest_registers(&self, _mode: TranslationMode) -> Option<Vec<Register>> {
        Some(Vec::new())
    }
    fn sink(&self, _viommu: u32) -> Result<SinkOf, Cause> {
        Ok(SinkOf::Host(self.sink.clone()))
    }
    fn events(&self) -> flume::Receiver<BackendEvent> {
        self.events.1.clone()
    }
}
