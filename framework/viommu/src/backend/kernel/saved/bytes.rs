//! One saved object as bytes.

use super::{SavedObject, SavedPlace, WHAT};
use crate::backend::{Backing, Mapping};
use viommu_plugin::{EntryKey, GuestMapping, KeyKind, StateError, StateReader, StateWriter, VirtualInterface};

impl SavedObject {
    pub(super) fn write(&self, out: &mut StateWriter) {
        match self {
            Self::Ioas { kernel, mappings } => {
                out.u8(0).u32(*kernel).u32(mappings.len() as u32);
                for Mapping { iova, length, backing, writable } in mappings {
                    let (kind, address) = match backing {
                        Backing::Physical(address) => (0, *address),
                        Backing::UserVa(address) => (1, *address),
                    };
                    out.u64(*iova).u64(*length).u8(kind).u64(address).u8((*writable).into());
                }
            }
            Self::NestParent { ioas, kernel } => _ = out.u8(1).u32(*ioas).u32(*kernel),
            Self::Viommu { parent, kernel, abort, bypass, interface } => {
                out.u8(2).u32(*parent).u32(kernel.unwrap_or(0)).u32(*abort).u32(*bypass);
                out.u8(interface.is_some().into());
                if let Some(of) = interface {
                    out.u32(of.handle).u32(of.flags).u64(of.page).u64(of.page_length).u64(of.guest_page);
                }
            }
            Self::Hwpt { viommu, key, place } => {
                let (number, kernel) = match place {
                    SavedPlace::Object(kernel) => (0, *kernel),
                    SavedPlace::Parent => (1, 0),
                    SavedPlace::Nowhere => (2, 0),
                    SavedPlace::Shadow(kernel, ..) => (3, *kernel),
                };
                out.u8(3).u32(*viommu).u8(number).u32(kernel).u32(key.kind.0).u32(key.event).u32(key.domain);
                key.words.iter().for_each(|word| _ = out.u64(*word));
                if let SavedPlace::Shadow(_, ioas, leaves) = place {
                    out.u32(*ioas).u32(leaves.len() as u32);
                    for leaf in leaves {
                        out.u64(leaf.iova).u64(leaf.length).u64(leaf.gpa).u32(leaf.permissions);
                    }
                }
            }
            Self::Device { stream, kernel, attached } => {
                out.u8(4).u32(*stream).u32(*kernel).u32(attached.unwrap_or(0));
            }
            Self::Vdevice { viommu, device, virt_id, kernel } => {
                out.u8(5).u32(*viommu).u32(*device).u32(*virt_id).u32(kernel.unwrap_or(0));
            }
            Self::HwQueue { viommu, index, kernel } => _ = out.u8(6).u32(*viommu).u32(*index).u32(*kernel),
            Self::EventQueue { viommu, kernel } => {
                out.u8(7).u32(*viommu).u32(kernel.len() as u32);
                kernel.iter().for_each(|(kind, id, fd)| _ = out.u32(*kind).u32(*id).u32(*fd as u32));
            }
            Self::FaultQueue { kernel, fd } => _ = out.u8(8).u32(*kernel).u32(*fd as u32),
        }
    }

    pub(super) fn read(from: &mut StateReader<'_>) -> Result<Self, StateError> {
        let some = |id: u32| (id != 0).then_some(id);
        Ok(match from.u8("kind")? {
            0 => {
                let (kernel, count) = (from.u32("IOAS")?, from.u32("mappings")?);
                let mut mappings = Vec::new();
                for _ in 0..count {
                    let (iova, length) = (from.u64("iova")?, from.u64("length")?);
                    let (kind, address) = (from.u8("backing")?, from.u64("address")?);
                    let backing = if kind == 1 { Backing::UserVa(address) } else { Backing::Physical(address) };
                    mappings.push(Mapping { iova, length, backing, writable: from.u8("writable")? != 0 });
                }
                Self::Ioas { kernel, mappings }
            }
            1 => Self::NestParent { ioas: from.u32("ioas")?, kernel: from.u32("HWPT")? },
            2 => {
                let (parent, kernel) = (from.u32("parent")?, some(from.u32("vIOMMU")?));
                let (abort, bypass) = (from.u32("abort")?, from.u32("bypass")?);
                let interface = match from.u8("interface")? {
                    0 => None,
                    _ => Some(VirtualInterface {
                        handle: from.u32("handle")?,
                        flags: from.u32("flags")?,
                        page: from.u64("page")?,
                        page_length: from.u64("page length")?,
                        guest_page: from.u64("guest page")?,
                    }),
                };
                Self::Viommu { parent, kernel, abort, bypass, interface }
            }
            3 => {
                let (viommu, place, kernel) = (from.u32("viommu")?, from.u8("place")?, from.u32("HWPT")?);
                let (kind, event) = (KeyKind(from.u32("key")?), from.u32("event")?);
                let mut key = EntryKey { kind, event, domain: from.u32("domain")?, ..EntryKey::default() };
                for word in &mut key.words {
                    *word = from.u64("key words")?;
                }
                let place = match place {
                    0 => SavedPlace::Object(kernel),
                    1 => SavedPlace::Parent,
                    2 => SavedPlace::Nowhere,
                    _ => {
                        let (ioas, count) = (from.u32("IOAS")?, from.u32("leaves")?);
                        let mut leaves = Vec::new();
                        for _ in 0..count {
                            let (iova, length) = (from.u64("iova")?, from.u64("length")?);
                            let (gpa, permissions) = (from.u64("gpa")?, from.u32("permissions")?);
                            let ends = |start: u64| length > 0 && start.checked_add(length - 1).is_some();
                            if !ends(iova) || !ends(gpa) {
                                let why = format!("{length:#x} bytes at {iova:#x} are no leaf");
                                return Err(StateError::Field { what: WHAT, field: "leaves", why });
                            }
                            leaves.push(GuestMapping { iova, length, gpa, permissions, reserved: 0 });
                        }
                        SavedPlace::Shadow(kernel, ioas, leaves)
                    }
                };
                Self::Hwpt { viommu, key, place }
            }
            4 => Self::Device {
                stream: from.u32("stream")?,
                kernel: from.u32("device")?,
                attached: some(from.u32("attached")?),
            },
            5 => Self::Vdevice {
                viommu: from.u32("viommu")?,
                device: from.u32("device")?,
                virt_id: from.u32("virt_id")?,
                kernel: some(from.u32("vdevice")?),
            },
            6 => {
                Self::HwQueue { viommu: from.u32("viommu")?, index: from.u32("index")?, kernel: from.u32("HW queue")? }
            }
            7 => {
                let (viommu, count) = (from.u32("viommu")?, from.u32("queues")?);
                let mut kernel = Vec::new();
                for _ in 0..count {
                    kernel.push((from.u32("type")?, from.u32("event queue")?, from.u32("fd")? as i32));
                }
                Self::EventQueue { viommu, kernel }
            }
            8 => Self::FaultQueue { kernel: from.u32("fault queue")?, fd: from.u32("fd")? as i32 },
            other => {
                let why = format!("{other} is none");
                return Err(StateError::Field { what: WHAT, field: "kind", why });
            }
        })
    }
}
