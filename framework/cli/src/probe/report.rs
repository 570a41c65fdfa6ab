//! From facts to what they mean. Pure.

mod arm;
pub(crate) mod device;
pub(crate) mod libvirt;

use super::facts::{Facts, Outcome};
use device::DeviceReport;
use serde::Serialize;
use viommu::uapi::Errno;

/// What a host can do, in words and for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// Whether there was an iommufd to ask.
    pub(crate) state: State,
    /// What that means, or what to do.
    pub(crate) sentence: String,
    /// Release and machine of the running kernel.
    pub(crate) kernel: String,
    /// Commands of Linux 7.3's iommufd.
    pub(crate) commands: Vec<Command>,
    /// What the running kernel lacks.
    pub(crate) lacks: Vec<String>,
    /// Whose limit pinned memory counts against.
    pub(crate) pinned_memory: Option<&'static str>,
    /// IOMMUs that the kernel lists.
    pub(crate) iommus: Vec<String>,
    /// The devices that were asked.
    pub(crate) devices: Vec<DeviceReport>,
}

/// Whether there was an iommufd to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// It was asked.
    Asked,
    /// There is none.
    NoIommufd,
    /// It may not be opened.
    NoPermission,
    /// It cannot be opened.
    Failed,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Command {
    /// The uAPI's name, without IOMMU.
    pub(crate) name: &'static str,
    /// Whether the running kernel has it; nothing if it gave an answer that says neither.
    pub(crate) there: Option<bool>,
}

/// What a kernel without a command cannot do, by the commands that matter to a guest's IOMMU.
const WITHOUT: [(&str, &str); 12] = [
    (
        "IOAS_MAP_FILE",
        "guest memory in a memfd cannot be mapped by its file: a process cannot hand its mappings to another",
    ),
    ("HWPT_ALLOC", "page tables of a guest's own cannot be allocated: no nesting of any kind"),
    ("GET_HW_INFO", "what the IOMMU can do cannot be asked: a guest cannot be shown what there is"),
    ("HWPT_SET_DIRTY_TRACKING", "which pages devices wrote cannot be tracked: no live migration with devices at work"),
    ("HWPT_GET_DIRTY_BITMAP", "which pages devices wrote cannot be read"),
    ("HWPT_INVALIDATE", "a guest's invalidations cannot be passed on: no nesting of any kind"),
    ("FAULT_QUEUE_ALLOC", "page requests of devices cannot be delivered: no PRI, no stalls"),
    ("VIOMMU_ALLOC", "there are no vIOMMUs: no nesting on Arm"),
    ("VDEVICE_ALLOC", "devices cannot be told apart by the guest's numbers: no nesting on Arm"),
    ("VEVENTQ_ALLOC", "faults of a guest's own tables do not reach the guest"),
    ("HW_QUEUE_ALLOC", "guests cannot be given command queues of their own (Tegra CMDQV)"),
    ("IOAS_CHANGE_PROCESS", "pinned memory stays accounted to the process that mapped it: no live update of the VMM"),
];

/// What the facts mean.
pub(crate) fn report(facts: &Facts) -> Report {
    let state = state(facts);
    let asked = state == State::Asked;
    let commands = if asked { commands(facts) } else { Vec::new() };
    let absent = |name: &str| commands.iter().any(|command| command.name == name && command.there == Some(false));
    let mut lacks: Vec<_> =
        WITHOUT.iter().filter(|(name, _)| absent(name)).map(|(name, words)| format!("{name}: {words}")).collect();
    if facts.fault_queue.is_some_and(|made| !made.is_ok()) && !absent("FAULT_QUEUE_ALLOC") {
        let name = facts.fault_queue.map(Outcome::name).unwrap_or_default();
        lacks.push(format!("FAULT_QUEUE_ALLOC answers {name}: page requests of devices cannot be delivered"));
    }
    Report {
        state,
        sentence: sentence(facts, state),
        kernel: format!("Linux {} {}", facts.kernel, facts.machine),
        lacks,
        pinned_memory: facts.rlimit_mode.map(|mode| match mode {
            0 => "counts against RLIMIT_MEMLOCK of the user (RLIMIT_MODE 0)",
            _ => "counts against RLIMIT_MEMLOCK of the process (RLIMIT_MODE 1)",
        }),
        iommus: facts.iommus.clone(),
        devices: facts.devices.iter().filter(|_| asked).map(|named| device::report(named, &commands)).collect(),
        commands,
    }
}

fn state(facts: &Facts) -> State {
    let open = facts.open;
    match open {
        // Whatever was opened, it knows none of the commands.
        Outcome::OK if facts.commands.values().all(|answer| answer.is(Errno::NOTTY)) => State::NoIommufd,
        Outcome::OK => State::Asked,
        _ if open.is(Errno::NOENT) || open.is(Errno::NODEV) || open.is(Errno::NXIO) => State::NoIommufd,
        _ if open.is(Errno::ACCESS) || open.is(Errno::PERM) => State::NoPermission,
        _ => State::Failed,
    }
}

fn commands(facts: &Facts) -> Vec<Command> {
    let all = viommu::uapi::Command::ALL.into_iter().filter(|command| *command != viommu::uapi::Command::Test);
    let there = |answer: &Outcome| match answer {
        // An argument that is too short.
        answer if answer.is(Errno::INVAL) => Some(true),
        answer if answer.is(Errno::NOTTY) => Some(false),
        _ => None,
    };
    let one = |name: &'static str| Command { name, there: facts.commands.get(name).and_then(there) };
    all.map(|command| one(command.name())).collect()
}

fn sentence(facts: &Facts, state: State) -> String {
    let path = &facts.iommufd;
    match state {
        State::NoIommufd if facts.open.is_ok() => format!("{path} is no iommufd: it knows none of its commands."),
        State::NoIommufd => format!(
            "There is no {path}. The kernel needs CONFIG_IOMMUFD; as a module it is loaded by `modprobe iommufd`. In a \
             container, the device node has to be passed in."
        ),
        State::NoPermission => format!(
            "{path} may not be opened ({}). Run as root, let udev give the node to a group of yours (mode 0660), or have \
             whoever may open it pass the file descriptor.",
            facts.open.name()
        ),
        State::Failed => format!("{path} cannot be opened: {}.", facts.open.name()),
        State::Asked if facts.devices.is_empty() => without_devices(&facts.candidates),
        State::Asked => format!("{} of {} devices could be asked.", bound(facts), facts.devices.len()),
    }
}

fn bound(facts: &Facts) -> usize {
    facts.devices.iter().filter(|device| device.bind.is_ok()).count()
}

fn without_devices(candidates: &[String]) -> String {
    let why = "No device was named, so nothing is known of the IOMMU itself: GET_HW_INFO, nesting parents and vIOMMUs need one.";
    match candidates {
        [] => format!("{why} There is none in /dev/vfio/devices: bind a PCI function to vfio-pci first."),
        [first, ..] => {
            format!("{why} There are {} in /dev/vfio/devices; `--device {first}` asks that one.", candidates.len())
        }
    }
}
