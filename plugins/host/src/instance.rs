//! One instance of a part, from create to destroy, and how a slot is called.
//!
//! UNSAFETY: holds the plugin's instance pointer.
#![expect(unsafe_code)]

use crate::CallError;
use crate::table::Table;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;
use viommu_plugin::abi::{DEAD, PANICKED, PluginEntry};
use viommu_plugin::{Message, Refusal};

type Destroy = unsafe extern "C" fn(*mut c_void) -> i64;

/// An instance of one part. Dropping it destroys it in the plugin; a plugin that panics then leaks it.
#[derive(Debug)]
pub(crate) struct Instance {
    table: Arc<Table>,
    raw: NonNull<c_void>,
    destroy: Destroy,
}

// SAFETY: the host may call an instance from different threads, one at a time.
unsafe impl Send for Instance {}

impl Instance {
    /// Takes over what the create slot called `slot` gave. `make` calls it.
    ///
    /// # Safety
    /// If `make` answers 0 and writes a pointer, that is an instance whose part is destroyed by `destroy`.
    pub(crate) unsafe fn create(
        table: &Arc<Table>,
        slot: &'static str,
        destroy: Option<Destroy>,
        make: impl FnOnce(&mut *mut c_void, &mut Message) -> i64,
    ) -> Result<Self, CallError> {
        let destroy = destroy.ok_or(CallError::Missing { slot })?;
        let (mut raw, mut why) = (std::ptr::null_mut(), Message::default());
        outcome_with(slot, make(&mut raw, &mut why), &why)?;
        let raw = NonNull::new(raw).ok_or(CallError::OutOfRange { slot, what: "no instance" })?;
        Ok(Self { table: table.clone(), raw, destroy })
    }

    pub(crate) fn entry(&self) -> &PluginEntry {
        &self.table.entry
    }

    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// The pointer to hand to the slots of this instance's part, and to no other.
    pub(crate) fn raw(&self) -> *mut c_void {
        self.raw.as_ptr()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: `create` paired them, and this is the last call on the instance. A panic inside leaks the instance:
        // nothing here can help it.
        unsafe { (self.destroy)(self.raw.as_ptr()) };
    }
}

/// Calls a slot: `call!(self.instance.frontend_read(offset, size, &mut value))?` is the count it answered. With `; why`
/// the slot's last argument is the text of a refusal.
macro_rules! call {
    ($this:ident.instance.$slot:ident($($arg:expr),*)) => {
        match $this.instance.entry().$slot {
            None => Err(CallError::Missing { slot: stringify!($slot) }),
            Some(slot) => {
                // SAFETY: the instance is alive and of this slot's part, the pointers are to memory that outlives the
                // call with the lengths beside them, and `&self`/`&mut self` serialise as the slot's tag asks.
                $crate::instance::outcome(stringify!($slot), unsafe { slot($this.instance.raw() $(, $arg)*) })
            }
        }
    };
    ($this:ident.instance.$slot:ident($($arg:expr),*); why) => {
        match $this.instance.entry().$slot {
            None => Err(CallError::Missing { slot: stringify!($slot) }),
            Some(slot) => {
                let mut why = viommu_plugin::Message::default();
                // SAFETY: as above; `why` is ours.
                let answer = unsafe { slot($this.instance.raw() $(, $arg)*, &mut why) };
                $crate::instance::outcome_with(stringify!($slot), answer, &why)
            }
        }
    };
}
pub(crate) use call;

/// Calls a slot of a part that was lent an object: a panic of that object comes before what the slot answered.
macro_rules! lend {
    ($this:ident.$loan:ident: $slot:ident($($arg:expr),*) $(; $why:ident)?) => {
        $this.$loan.check(stringify!($slot), call!($this.instance.$slot($($arg),*) $(; $why)?))
    };
}
pub(crate) use lend;

/// What a slot's answer means: a count, or an error.
#[inline]
pub(crate) fn outcome(slot: &'static str, answer: i64) -> Result<u64, CallError> {
    u64::try_from(answer).map_err(|_| failure(slot, answer, &Message::default()))
}

/// As [`outcome`], with the text the plugin gave for a refusal.
pub(crate) fn outcome_with(slot: &'static str, answer: i64, why: &Message) -> Result<u64, CallError> {
    u64::try_from(answer).map_err(|_| failure(slot, answer, why))
}

#[cold]
fn failure(slot: &'static str, answer: i64, why: &Message) -> CallError {
    if answer == PANICKED {
        return CallError::Panicked { slot };
    }
    if answer == DEAD {
        return CallError::Dead;
    }
    let Some(errno) = answer.checked_neg().and_then(|errno| i32::try_from(errno).ok()).filter(|errno| *errno < 4096)
    else {
        return CallError::OutOfRange { slot, what: "not an errno" };
    };
    let text = why.text();
    let text = if text.is_empty() { format!("{slot} answered errno {errno}") } else { text };
    CallError::Refused(Refusal::new(errno, text))
}
