//! The QEMU process: started with sockets in a folder of its own, killed when it is dropped, and when this process ends
//! without dropping anything.

use crate::QemuError;
use crate::qmp::Qmp;
use crate::qtest::Qtest;
use crate::supervisor::{MISSING, supervised};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// The program, unless `VIOMMU_QEMU` names another.
pub const PROGRAM: &str = "qemu-system-aarch64";

/// Where the machine `virt` has its memory.
pub(crate) const RAM: u64 = 0x4000_0000;
/// Where its CPU sleeps: memory that nothing else uses.
const ASLEEP: u64 = 0x5000_0000;
/// WFI, and back to it.
const SLEEP: [u32; 2] = [0xd503_207f, 0x17ff_ffff];

/// The file with what it says.
const SAID: &str = "said";

/// A running QEMU.
pub(crate) struct Process {
    /// Its supervisor.
    child: Child,
    program: String,
    /// With its sockets and what it says; gone when it is.
    folder: tempfile::TempDir,
    /// Its memory, from [`RAM`].
    pub(crate) ram: File,
}

impl Process {
    /// Starts it with `ram` bytes of memory and an `edu` device in each slot `1..=edus` of its first bus.
    pub(crate) fn start(ram: u64, edus: u32, limit: Duration) -> Result<(Self, Qtest, Qmp), QemuError> {
        let program = std::env::var("VIOMMU_QEMU").unwrap_or_else(|_| PROGRAM.into());
        let folder = tempfile::tempdir().map_err(QemuError::os("a temporary folder"))?;
        let memory = memfd_create("viommu-qemu", MemfdFlags::CLOEXEC).map_err(std::io::Error::from);
        let memory = File::from(memory.map_err(QemuError::os("memory for QEMU"))?);
        memory.set_len(ram).map_err(QemuError::os("memory for QEMU"))?;
        let (asleep, said) = (folder.path().join("asleep"), folder.path().join(SAID));
        let code: Vec<u8> = SLEEP.into_iter().flat_map(u32::to_le_bytes).collect();
        std::fs::write(&asleep, code).map_err(QemuError::os("the CPU's code"))?;
        let stderr = File::create(&said).map_err(QemuError::os("a temporary file"))?;
        let (qtest, qmp) = (listen(&folder.path().join("qtest"))?, listen(&folder.path().join("qmp"))?);

        let mut command = supervised(&program);
        command.args(["-no-user-config", "-nodefaults", "-display", "none", "-cpu", "cortex-a53", "-accel", "tcg"]);
        // Virtual time stands still while something runs and jumps to the next timer when the CPU sleeps, which it
        // always does: a DMA of `edu` takes 100 ms of it, and none of ours.
        command.args(["-icount", "shift=0,sleep=off"]);
        command.args(["-machine", "virt,iommu=smmuv3,gic-version=3,memory-backend=ram"]);
        command.args(["-global", "arm-smmuv3.stage=nested", "-m", &format!("{}M", ram >> 20)]);
        let path = format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd());
        command.args(["-object", &format!("memory-backend-file,id=ram,size={ram},mem-path={path},share=on")]);
        command.args(["-device", &format!("loader,file={},addr={ASLEEP:#x},cpu-num=0,force-raw=on", asleep.display())]);
        for slot in 1..=edus {
            command.args(["-device", &format!("edu,addr={slot:#x},dma_mask={:#x}", u64::MAX)]);
        }
        command.args(["-qtest", &format!("unix:{}", folder.path().join("qtest").display()), "-qtest-log", "/dev/null"]);
        command.args(["-qmp", &format!("unix:{}", folder.path().join("qmp").display())]);
        command.stdout(Stdio::null()).stderr(stderr);
        let child = command.spawn().map_err(|cause| QemuError::Start(format!("{program}: {cause}")))?;

        let mut process = Self { child, program, folder, ram: memory };
        let until = Instant::now() + limit;
        let qtest = process.accept(&qtest, until)?;
        let qmp = process.accept(&qmp, until)?;
        Ok((process, Qtest::new(qtest, limit)?, Qmp::new(qmp, limit)?))
    }

    /// What it has said.
    pub(crate) fn words(&self) -> String {
        let said = std::fs::read(self.folder.path().join(SAID)).unwrap_or_default();
        String::from_utf8_lossy(&said).trim().to_owned()
    }

    /// QEMU's end of a socket.
    fn accept(&mut self, listener: &UnixListener, until: Instant) -> Result<UnixStream, QemuError> {
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).map_err(QemuError::os("a socket of QEMU's"))?;
                    return Ok(stream);
                }
                Err(cause) if cause.kind() != ErrorKind::WouldBlock => {
                    return Err(QemuError::os("a socket of QEMU's")(cause));
                }
                Err(_) => {}
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(match status.code() {
                    Some(MISSING) => QemuError::Missing(self.program.clone()),
                    _ => QemuError::Start(format!("{status}: {}", self.words())),
                });
            }
            if Instant::now() > until {
                return Err(QemuError::Start(format!("it does not open its sockets: {}", self.words())));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its supervisor kills it. It may have ended by itself.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn listen(path: &Path) -> Result<UnixListener, QemuError> {
    let listener = UnixListener::bind(path).map_err(QemuError::os("a socket for QEMU"))?;
    listener.set_nonblocking(true).map_err(QemuError::os("a socket for QEMU"))?;
    Ok(listener)
}
