//! A VMM is killed, and another process that was given its files goes on: the devices' DMA never stops, and never goes
//! elsewhere than the guest's tables say.

use crate::bench::{ASID, Bench, DEVICES, Direction, Engine, IOVA, Machine, Page, STREAMS, map_all, memory_of, nested};
use crate::checks::Checks;
use crate::edu::Edu;
use crate::estate::{Estate, leave};
use crate::faults::{F_TRANSLATION, HOLE, one};
use crate::guest::tlbi_nh_va;
use crate::kernel::{Files, Kernel, Trust};
use crate::lives::works;
use crate::tables::BYPASS;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread::JoinHandle;
use std::time::Duration;
use viommu::backend::ObjectKind;
use viommu::backend::kernel::sys::RawDevice;
use viommu::objects::RestoreConfig;
use viommu::save::SavedViommu;
use viommu::vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use viommu_examples::Story;

/// Where the first device writes all the time, and where in its page.
const STEADY: u64 = IOVA + 0x2000;
const STEADY_OFFSET: u64 = 0x800;
/// Where in its page the second device's last DMA under the first VMM lands.
const LAST_OFFSET: u64 = 0x400;

/// The process that is to be killed: builds a guest, gives all away, begins one DMA more.
pub(crate) fn give(socket: &Path) -> Story {
    let machine = Kernel::new(Trust::Checked)?;
    let bench = nested(&machine)?;
    bench.map(STEADY, Page::C)?;
    let to = UnixDatagram::unbound()?;
    to.connect(socket)?;
    leave(&to, &machine, &bench)?;
    bench.engines[1].start(IOVA + LAST_OFFSET, 8, Direction::Write)?;
    to.send(b"begun")?;
    loop {
        std::thread::park();
    }
}

/// A VMM's files, received while it lived, and it is dead: its first device is made to write by this process all the time.
struct Inherited {
    machine: Kernel,
    estate: Estate,
    memory: Arc<GuestMemoryMmap>,
    files: Files,
    steady: Steady,
}

fn inherit(checks: &mut Checks) -> Story<Inherited> {
    let machine = Kernel::new(Trust::Checked)?;
    let socket = PathBuf::from(format!("/tmp/kernel_nested.{}", std::process::id()));
    let from = UnixDatagram::bind(&socket)?;
    let mut doomed = Command::new(std::env::current_exe()?).arg("give").arg(&socket).spawn()?;
    let received = Estate::receive(&from);
    fs::remove_file(&socket)?;
    let mut estate = received?;
    let memory = memory_of(estate.memory.take().ok_or("no memory was received")?)?;
    let files = std::mem::take(&mut estate.devices).into_iter();
    let files: Files = files.map(|(stream, fd)| (stream, Arc::new(RawDevice::from_fd(fd)))).collect();
    let file = |device: usize| files.get(&machine.stream(device)).ok_or("a device's file was not received");
    let page = *estate.guest.get(6 + Page::C as usize).ok_or("the guest knew more")?;
    let steady = Steady::start(Edu::new(file(0)?.clone())?, memory.clone(), page);
    steady.wait_for_more(1)?;
    let mut begun = [0; 5];
    from.recv(&mut begun)?;
    doomed.kill()?;
    doomed.wait()?;
    let last = Edu::new(file(1)?.clone())?;
    println!("# at the kill, the second device's DMA was {}", if last.busy()? { "on its way" } else { "done" });
    last.finish()?;
    let at = estate.guest[6] + LAST_OFFSET;
    let landed: u64 = memory.read_obj(GuestAddress(at))?;
    checks.holds("a DMA that the killed VMM began lands where the guest's tables say", landed != 0, "it did not");
    Ok(Inherited { machine, estate, memory, files, steady })
}

/// All of it is taken over.
pub(crate) fn whole(checks: &mut Checks) -> Story {
    let Inherited { machine, estate, memory, files, steady } = inherit(checks)?;
    let saved = SavedViommu::from_bytes(&estate.viommu)?;
    let iommufd = estate.iommufd.ok_or("no iommufd was received")?;
    let (host, refused) = machine.adopted((iommufd, &files), &estate.graph, estate.events)?;
    checks.same("everything is taken over", refused, vec![]);
    let (backend, _) = machine.files()?;
    println!("# {} objects", backend.unclaimed().len());
    let ioas = host.ioas()?;
    map_all(&machine, &ioas, &memory)?;
    let parent = ioas.nest_parent()?;
    let devices = (0..DEVICES).map(|n| host.device(machine.stream(n))).collect::<Result<Vec<_>, _>>()?;
    let named = STREAMS.into_iter().zip(devices.iter().map(|device| device.handle().clone())).collect();
    let restored = parent.restore_viommu(RestoreConfig::new(memory.clone(), named), &saved)?;
    checks.same("and asked for by the same calls that made it", backend.unclaimed(), vec![]);
    drop(backend);
    let engines = (0..DEVICES).map(|n| machine.engine(n)).collect::<Story<Vec<_>>>()?;
    let bench = Bench::recalled((host, ioas, parent), devices, restored, engines, (memory, &estate.guest))?;
    steady.wait_for_more(3)?;
    let Written { landed, lost } = steady.stop()?;
    println!("# {landed} DMAs of the first device from before the kill until now");
    checks.same("no DMA of the first device was lost at any time", lost, 0);

    goes_on(&bench, checks)?;
    checks.same("the guest's new VMM leaves nothing", bench.close()?.as_str(), "nothing");
    drop(files);
    machine.release();
    let next = nested(&machine)?;
    checks.same("the next VMM's devices do what its guest says", works(&next)?, true);
    checks.same("nothing is left over of the next", next.close()?.as_str(), "nothing");
    Ok(())
}

/// What a guest needs of its VMM, it has of its new one.
fn goes_on(bench: &Bench, checks: &mut Checks) -> Story {
    let guest = &bench.guest;
    checks.same("the guest's table is as it was", bench.lands(1, IOVA)?, Some(Page::A));
    bench.map(IOVA, Page::B)?;
    checks.same("changed and not said, stale", bench.lands(1, IOVA)?, Some(Page::A));
    guest.finish(&[tlbi_nh_va(ASID, IOVA)])?;
    checks.same("said in its command queue, fresh", bench.lands(1, IOVA)?, Some(Page::B));
    for (device, stream) in STREAMS.into_iter().enumerate() {
        bench.write(device, HOLE)?;
        let fault = (F_TRANSLATION, stream, false, HOLE);
        checks.same(
            format_args!("a fault of device {device} is in its event queue"),
            one(&guest.await_events()?),
            Some(fault),
        );
    }
    guest.set_entry(STREAMS[1], BYPASS)?;
    checks.same("an entry that it changes", bench.lands(1, bench.page(Page::C))?, Some(Page::C));
    checks.same("is not the other device's", bench.lands(0, IOVA)?, Some(Page::B));
    Ok(())
}

/// One device's file and the event queue's are not received.
pub(crate) fn parts(checks: &mut Checks) -> Story {
    let Inherited { machine, estate, files, steady, .. } = inherit(checks)?;
    let (here, absent) = (machine.stream(0), machine.stream(1));
    let files: Files = files.into_iter().filter(|(stream, _)| *stream == here).collect();
    drop(estate.events);
    let iommufd = estate.iommufd.ok_or("no iommufd was received")?;
    let (host, refused) = machine.adopted((iommufd, &files), &estate.graph, BTreeMap::new())?;
    let said: Vec<_> = refused.iter().map(|(_, kind, why)| format!("{kind}: {why}")).collect();
    said.iter().for_each(|said| println!("# not taken over: {said}"));
    let kinds: Vec<_> = refused.iter().map(|(_, kind, _)| *kind).collect();
    checks.same(
        "a device and an event queue without a file, and what stands on them, are not taken over",
        kinds,
        vec![ObjectKind::Device, ObjectKind::EventQueue, ObjectKind::Vdevice],
    );
    let named = |what: &str| said.iter().any(|said| said.contains(what));
    checks.holds(
        "it is said which device",
        named(&format!("stream {absent:#x} was not received")),
        format_args!("{said:?}"),
    );
    checks.holds("and why the event queue", named("its event fd was not received"), format_args!("{said:?}"));
    checks.holds("the absent device cannot be had", host.device(absent).is_err(), "it can");
    steady.wait_for_more(3)?;
    let Written { landed, lost } = steady.stop()?;
    println!("# {landed} DMAs of the first device from before the kill until now");
    checks.same("no DMA of the other was lost", lost, 0);
    let (backend, _) = machine.files()?;
    checks.same("what nobody wants is discarded, all of it", backend.discard_unclaimed(), vec![]);
    checks.holds("nothing is left over", host.shutdown()?.is_empty(), "something is");
    drop((backend, files));
    machine.release();
    let next = nested(&machine)?;
    checks.same("the next VMM's devices do what its guest says", works(&next)?, true);
    checks.same("nothing is left over of the next", next.close()?.as_str(), "nothing");
    Ok(())
}

/// A device that writes to one page without an end, and a thread that looks whether it got there.
struct Steady {
    shared: Arc<Shared>,
    thread: JoinHandle<Story>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    landed: AtomicU64,
    lost: AtomicU64,
}

/// How many of its DMAs landed there.
struct Written {
    landed: u64,
    lost: u64,
}

impl Steady {
    fn start(device: Edu, memory: Arc<GuestMemoryMmap>, page: u64) -> Self {
        let shared = Arc::new(Shared::default());
        let of = shared.clone();
        let thread = std::thread::spawn(move || {
            let at = GuestAddress(page + STEADY_OFFSET);
            while !of.stop.load(Relaxed) {
                memory.write_obj(0u64, at)?;
                device.start(STEADY + STEADY_OFFSET, 8, Direction::Write)?;
                device.finish()?;
                let there: u64 = memory.read_obj(at)?;
                let count = if there == 0 { &of.lost } else { &of.landed };
                count.fetch_add(1, Relaxed);
            }
            Ok(())
        });
        Self { shared, thread }
    }

    /// Waits until so many DMAs more are over.
    fn wait_for_more(&self, more: u64) -> Story {
        let over = || self.shared.landed.load(Relaxed) + self.shared.lost.load(Relaxed);
        let wanted = over() + more;
        while over() < wanted {
            if self.thread.is_finished() {
                return Err("the first device is not made to write any more".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn stop(self) -> Story<Written> {
        self.shared.stop.store(true, Relaxed);
        self.thread.join().map_err(|_| "the thread panicked")??;
        Ok(Written { landed: self.shared.landed.load(Relaxed), lost: self.shared.lost.load(Relaxed) })
    }
}
