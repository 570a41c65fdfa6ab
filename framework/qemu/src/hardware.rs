//! [`Hardware`] over QEMU, and DMA by its devices.

use crate::QemuError;
use crate::canvas::{Canvas, MARK, tag, tagged};
use crate::edu;
use crate::process::{PROGRAM, Process, RAM};
use crate::qmp::Qmp;
use crate::qtest::{Commands, Qtest};
use arc_swap::ArcSwapOption;
use rustix::fs::{FallocateFlags, fallocate};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use viommu::backend::direct::{Hardware, InterruptHandler, PhysicalMemory};
use viommu::vm_memory::{FileOffset, MmapRegion};
use viommu_plugin::Unreadable;

/// Where the machine `virt` has its SMMU.
const SMMU: u64 = 0x0905_0000;
/// The first of the SMMU's four interrupt lines, as the interrupt controller counts them.
const LINES: u32 = 74;
const CR0: u64 = SMMU + 0x20;
const GBPA: u64 = SMMU + 0x44;
const GBPA_UPDATE: u64 = 1 << 31;

/// Where bytes are on their way between us and a device's buffer: memory that nothing else uses.
pub(crate) const SCRATCH: u64 = 0x6000_0000;
const SCRATCH_BYTES: u64 = 4 * 4096;
/// In a device's buffer: the mark that it writes, and the word into which it reads.
const MARK_AT: u64 = 0;
const WORD_AT: u64 = 8;
/// Of one DMA. QEMU carries out an access that is refused 4 bytes at a time, and reports each.
const BYTES: u64 = 4;

/// What QEMU is started with.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Bytes of memory from 1 GiB on, in whole MiB, at least 1 GiB. Only what is used is taken from the system.
    pub ram: u64,
    /// `edu` devices: in slots 1 to this of bus 0. The stream of slot n is 8n.
    pub devices: u32,
    /// How long QEMU may take for anything.
    pub limit: Duration,
}

impl Default for Options {
    /// Memory up to 8 GiB, 12 devices, 30 seconds.
    fn default() -> Self {
        Self { ram: 7 << 30, devices: 12, limit: Duration::from_secs(30) }
    }
}

/// A QEMU: its SMMU is [`Hardware`], its devices do DMA.
pub struct QemuHardware {
    memory: Arc<PhysicalMemory>,
    handler: ArcSwapOption<InterruptHandler>,
    port: Mutex<Port>,
    canvas: Mutex<Canvas>,
    options: Options,
    version: String,
    /// It failed once: all registers read as ones from then on.
    gone: AtomicBool,
    process: Process,
}

/// What one thread at a time talks to.
struct Port {
    qtest: Qtest,
    qmp: Qmp,
}

/// What the device of a read got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Got {
    /// Nothing, or zeros: QEMU's answer to a read that is refused.
    Nothing,
    /// The 4 bytes at this physical address, which is watched.
    From(u64),
    /// These 4 bytes, of memory that is not watched.
    Word(u32),
}

impl QemuHardware {
    /// Starts QEMU.
    ///
    /// # Errors
    /// [`QemuError::Missing`] if there is none, or one whose SMMU has no stage 2; what else may go wrong with a process and its sockets.
    pub fn start(options: Options) -> Result<Arc<Self>, QemuError> {
        let (process, mut qtest, mut qmp) = Process::start(options.ram, options.devices, options.limit)?;
        let offers = qtest.run(Commands::default().read(SMMU, 4))?[0];
        if offers & 3 != 3 {
            let wanted = format!("{PROGRAM} with both stages of SMMUv3 (9.1 and later; this is {})", qmp.version);
            return Err(QemuError::Missing(wanted));
        }
        let controller = qmp.child("/machine/unattached", "arm-gicv3")?;
        qtest.run(Commands::default().line(&format!("irq_intercept_in {controller}")))?;
        let hardware = Self {
            memory: PhysicalMemory::new(),
            handler: ArcSwapOption::empty(),
            version: qmp.version.clone(),
            port: Mutex::new(Port { qtest, qmp }),
            canvas: Mutex::default(),
            options,
            gone: AtomicBool::new(false),
            process,
        };
        let scratch = hardware.mapping(SCRATCH, SCRATCH_BYTES)?;
        let taken = hardware.memory.add_region(SCRATCH, scratch);
        taken.map_err(|cause| QemuError::Start(cause.to_string()))?;
        hardware.enable_devices()?;
        Ok(Arc::new(hardware))
    }

    /// QEMU's version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The part of QEMU's memory file at this physical address.
    ///
    /// # Errors
    /// If the system gives no other handle of it.
    pub fn file(&self, pa: u64) -> Result<FileOffset, QemuError> {
        let file = self.process.ram.try_clone().map_err(QemuError::os("QEMU's memory"))?;
        Ok(FileOffset::new(file, pa.wrapping_sub(RAM)))
    }

    /// QEMU's memory at this physical address, mapped here.
    ///
    /// # Errors
    /// If it cannot be mapped.
    pub fn mapping(&self, pa: u64, length: u64) -> Result<Arc<MmapRegion>, QemuError> {
        let region = MmapRegion::from_file(self.file(pa)?, length as usize);
        let refused = |cause| QemuError::os("mapping QEMU's memory")(std::io::Error::other(cause));
        region.map(Arc::new).map_err(refused)
    }

    /// Makes memory zero, and gives it back to the system.
    ///
    /// # Errors
    /// If the system does not take it.
    pub fn clear(&self, pa: u64, length: u64) -> Result<(), QemuError> {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let done = fallocate(&self.process.ram, hole, pa.wrapping_sub(RAM), length);
        done.map_err(|cause| QemuError::os("clearing QEMU's memory")(cause.into()))
    }

    /// Fills memory (whole pages, part of [`Hardware::memory`]) with its own address ([`tag`]), and
    /// looks for what devices wrote there from now on.
    pub fn watch(&self, pa: u64, length: u64) {
        self.canvas().watch(&self.memory, pa, length);
    }

    /// All devices, SMMU and `edu`s, as after power-on. Memory keeps its bytes.
    ///
    /// # Errors
    /// If QEMU does not answer.
    pub fn reset(&self) -> Result<(), QemuError> {
        self.port().qmp.reset()?;
        self.enable_devices()
    }

    fn enable_devices(&self) -> Result<(), QemuError> {
        let mut port = self.port();
        self.memory.write(SCRATCH, &MARK.to_le_bytes()).map_err(|_| gone("the scratch page"))?;
        for slot in 1..=self.options.devices {
            edu::enable(&mut port.qtest, slot)?;
            port.untranslated(slot, (SCRATCH, MARK_AT, BYTES), false, self.options.limit)?;
        }
        port.qtest.take_raised();
        Ok(())
    }

    /// The device in `slot` writes 4 bytes to `iova`, a multiple of 4. Where they landed, which then is as before:
    /// looked for at `guess`, then in all that is watched.
    ///
    /// # Errors
    /// If QEMU does not answer.
    pub fn write(&self, slot: u32, iova: u64, guess: Option<u64>) -> Result<Option<u64>, QemuError> {
        let landed = self.write_at(slot, iova, guess)?;
        if landed.is_some() {
            return Ok(landed);
        }
        self.find_mark()
    }

    /// As [`QemuHardware::write`], but it only looks at `guess`.
    pub(crate) fn write_at(&self, slot: u32, iova: u64, guess: Option<u64>) -> Result<Option<u64>, QemuError> {
        let before = guess.and_then(|at| self.word(at).ok());
        let done = edu::transfer(&mut self.port().qtest, slot, (iova, MARK_AT, BYTES), true, self.options.limit);
        self.deliver();
        done?;
        let guessed = guess.zip(before).filter(|(at, _)| self.word(*at) == Ok(MARK));
        let Some((at, before)) = guessed else { return Ok(None) };
        self.memory.write(at, &before.to_le_bytes()).map_err(|_| gone("the place of a DMA"))?;
        Ok(Some(at))
    }

    /// Looks for what a device wrote in all that is watched, and makes it as it was.
    pub(crate) fn find_mark(&self) -> Result<Option<u64>, QemuError> {
        let found = self.canvas().find_mark(&self.memory);
        if let Some(at) = found {
            self.memory.write(at, &tag(at).to_le_bytes()).map_err(|_| gone("the place of a DMA"))?;
        }
        Ok(found)
    }

    /// Leaves at a watched address what a device would have written there, for [`QemuHardware::find_mark`].
    pub(crate) fn stray(&self, pa: u64) -> Result<(), QemuError> {
        self.memory.write(pa, &MARK.to_le_bytes()).map_err(|_| gone("the place of a DMA"))
    }

    /// What QEMU has said on its standard error.
    pub(crate) fn words(&self) -> String {
        self.process.words()
    }

    /// Whether this address is watched.
    pub(crate) fn watches(&self, pa: u64) -> bool {
        self.canvas().holds(pa)
    }

    /// Nothing is watched any more.
    pub(crate) fn forget(&self) {
        *self.canvas() = Canvas::default();
    }

    /// The device in `slot` reads 4 bytes from `iova`, a multiple of 4.
    ///
    /// What it has in its buffer is written out behind the SMMU's back: for that moment the SMMU is off, which in
    /// QEMU forgets nothing.
    ///
    /// # Errors
    /// If QEMU does not answer.
    pub fn read(&self, slot: u32, iova: u64) -> Result<Got, QemuError> {
        let got = self.read_word(slot, iova);
        self.deliver();
        Ok(match got? {
            0 => Got::Nothing,
            word => tagged(word).filter(|at| self.canvas().holds(*at)).map_or(Got::Word(word), Got::From),
        })
    }

    fn read_word(&self, slot: u32, iova: u64) -> Result<u32, QemuError> {
        let (mut port, limit) = (self.port(), self.options.limit);
        edu::transfer(&mut port.qtest, slot, (iova, WORD_AT, BYTES), false, limit)?;
        port.untranslated(slot, (SCRATCH, WORD_AT, BYTES), true, limit)?;
        self.word(SCRATCH).map_err(|_| gone("the scratch page"))
    }

    pub(crate) fn word(&self, pa: u64) -> Result<u32, Unreadable> {
        let mut bytes = [0; BYTES as usize];
        self.memory.read(pa, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Several accesses to registers of the SMMU at once: offset, size, and the value if it is a write. The values read.
    ///
    /// # Errors
    /// If QEMU does not answer.
    pub fn registers(&self, accesses: &[(u64, u32, Option<u64>)]) -> Result<Vec<u64>, QemuError> {
        let mut commands = Commands::default();
        for (offset, size, value) in accesses {
            match value {
                Some(value) => commands.write(SMMU + offset, *size, *value),
                None => commands.read(SMMU + offset, *size),
            };
        }
        let values = self.port().qtest.run(&commands);
        self.deliver();
        values
    }

    /// Calls the handler for what was raised, without any lock.
    fn deliver(&self) {
        let raised = self.port().qtest.take_raised();
        let Some(handler) = self.handler.load_full() else { return };
        raised
            .iter()
            .filter_map(|line| line.checked_sub(LINES))
            .filter(|line| *line < 4)
            .for_each(|line| handler(line));
    }

    /// A register access that cannot fail upwards.
    fn access(&self, offset: u64, size: u32, value: Option<u64>) -> u64 {
        if self.gone.load(Ordering::Acquire) {
            return u64::MAX;
        }
        match self.registers(&[(offset, size, value)]) {
            Ok(values) => values.first().copied().unwrap_or(u64::MAX),
            Err(error) => {
                tracing::error!(%error, "QEMU is given up");
                self.gone.store(true, Ordering::Release);
                u64::MAX
            }
        }
    }

    fn port(&self) -> MutexGuard<'_, Port> {
        self.port.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn canvas(&self) -> MutexGuard<'_, Canvas> {
        self.canvas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Port {
    /// A transfer while the SMMU is off and lets everything pass.
    fn untranslated(
        &mut self,
        slot: u32,
        what: (u64, u64, u64),
        to_memory: bool,
        limit: Duration,
    ) -> Result<(), QemuError> {
        let before = self.qtest.run(Commands::default().read(CR0, 4).read(GBPA, 4))?;
        let (cr0, gbpa) = (before[0], before[1]);
        self.qtest.run(Commands::default().write(GBPA, 4, GBPA_UPDATE).write(CR0, 4, cr0 & !1))?;
        let done = edu::transfer(&mut self.qtest, slot, what, to_memory, limit);
        self.qtest.run(Commands::default().write(CR0, 4, cr0).write(GBPA, 4, gbpa | GBPA_UPDATE))?;
        done
    }
}

fn gone(what: &'static str) -> QemuError {
    QemuError::os(what)(std::io::ErrorKind::NotFound.into())
}

impl Hardware for QemuHardware {
    fn mmio_read(&self, offset: u64, size: u32) -> u64 {
        self.access(offset, size, None)
    }

    fn mmio_write(&self, offset: u64, size: u32, value: u64) {
        self.access(offset, size, Some(value));
    }

    fn memory(&self) -> &PhysicalMemory {
        &self.memory
    }

    /// QEMU executes the whole ring while the doorbell is written.
    fn relax(&self) {}

    fn on_interrupt(&self, handler: InterruptHandler) {
        self.handler.store(Some(Arc::new(handler)));
    }
}

impl std::fmt::Debug for QemuHardware {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QemuHardware").field("version", &self.version).field("memory", &self.memory).finish()
    }
}
