//! The actor of every object: runs operations one at a time off its arbiter, keeps what they record, and survives
//! their panics.

use super::change::{Change, error_of};
use super::node::{Node, ObjectState};
use crate::backend::ObjectKind;
use crate::host::{HostEvent, Reap, Shared};
use crate::{Cause, Error, simulation};
use actix::prelude::*;
use std::any::Any;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// What an actor remembers between messages. Cloned for each operation: a failed one leaves the old value.
pub(crate) trait State: Clone + Send + Unpin + 'static {
    /// Of which object.
    const KIND: ObjectKind;
    /// Whether DMA depends on it: then a panic degrades it until the next configuration change; else it is restarted
    /// at once.
    const GUARDS_DMA: bool = false;
    /// What never changes about the object; handles answer it without asking the actor.
    type Facts: Send + Sync + 'static;
    /// Handles that its handle keeps: the parents.
    type Keeps: Send + Sync + 'static;

    /// Takes the object out of the backend.
    fn destroy(&mut self, change: &mut Change) -> Result<(), Cause> {
        let id = change.node().id;
        change.destroy(id)
    }
    /// Another actor that does the destroying, for objects that live in its tables.
    fn destroyed_by(&self, _id: u32) -> Option<BoxedAnswer> {
        None
    }
    /// Fail-safe: lets no DMA of it pass.
    fn block(&mut self, _change: &mut Change) -> Result<(), Cause> {
        Ok(())
    }
    /// Out of service for good; `block` was called.
    fn quarantined(&mut self) {}
    /// Starts over from what the backend has under the known IDs; makes nothing anew that is there.
    fn adopt(&mut self, _change: &mut Change) -> Result<(), Cause> {
        Ok(())
    }
    /// The state is now the current one: show what handles read without asking.
    fn committed(&self) {}
}

pub(crate) type BoxedAnswer = std::pin::Pin<Box<dyn Future<Output = Result<(), Error>>>>;
type Finally = Box<dyn FnOnce(bool) + Send>;

/// One message's work: check, act, record, top to bottom, where blocking is allowed.
pub(crate) trait Operation: Send + 'static {
    /// What it works on.
    type State: State;
    /// What it answers.
    type Output: Send + 'static;
    /// The verb, in uAPI words.
    const NAME: &'static str;
    /// The kind of object it makes, if it makes one: errors name that kind.
    const CREATES: Option<ObjectKind> = None;
    /// Whether it changes what devices may do: a degraded object blocks DMA instead.
    const CONFIGURES: bool = false;
    /// Whether it is served in quarantine too.
    const ALWAYS: bool = false;

    /// Whether DMA must not go on as before if it fails, because nobody is told of the failure.
    fn fails_closed(&self) -> bool {
        false
    }

    fn run(self, state: &mut Self::State, change: &mut Change) -> Result<Self::Output, Cause>;

    /// What must happen however it ends (`true`: as asked, or safely blocked), panics included.
    fn finally(&self, _state: &Self::State) -> Option<Finally> {
        None
    }
}

/// An operation as an actix message.
pub(crate) struct Do<O>(pub(crate) O);

/// Destroys the object. Fails with EBUSY while others use it, ENOENT if it is gone.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), Error>")]
pub(crate) struct Destroy;

/// Sends [`Destroy`] to the actor of object `id`.
pub(crate) async fn destroy_by(object: &Recipient<Destroy>, id: u32) -> Result<Result<(), Error>, actix::MailboxError> {
    simulation::pass(id, "destroy").await;
    object.send(Destroy).await
}

/// Makes the actor start over from the backend's objects.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), Error>")]
pub(crate) struct Restart;

/// The actor.
pub(crate) struct Served<S: State> {
    node: Arc<Node>,
    state: S,
    shared: Arc<Shared>,
}

impl<S: State> Served<S> {
    pub(crate) fn new(node: Arc<Node>, state: S, shared: Arc<Shared>) -> Self {
        Self { node, state, shared }
    }

    fn serve<O: Operation<State = S>>(&mut self, operation: O) -> AtomicResponse<Self, Result<O::Output, Error>> {
        let (node, shared, state) = (self.node.clone(), self.shared.clone(), self.state.clone());
        let finally = operation.finally(&state);
        let served = async move {
            let job = {
                let (node, shared) = (node.clone(), shared.clone());
                move || carry_out(operation, state, &node, &shared)
            };
            let Some(outcome) = shared.off_thread(job).await else {
                return (None, Err(error_of(&node, O::CREATES, O::NAME, Cause::Closed)));
            };
            for (node, object) in outcome.after {
                if !matches!(destroy_by(&object, node.id).await, Ok(Ok(()))) {
                    shared.reap(Reap::Object { node, object });
                }
            }
            if let Some(finally) = finally {
                shared.off_thread(move || finally(outcome.safe)).await;
            }
            (outcome.state, outcome.result)
        };
        AtomicResponse::new(Box::pin(served.into_actor(self).map(|(state, result), actor, _| {
            if let Some(state) = state {
                actor.state = state;
            }
            result
        })))
    }
}

impl<S: State> Actor for Served<S> {
    type Context = Context<Self>;
}

impl<O: Operation> Message for Do<O> {
    type Result = Result<O::Output, Error>;
}

impl<S: State, O: Operation<State = S>> Handler<Do<O>> for Served<S> {
    type Result = AtomicResponse<Self, Result<O::Output, Error>>;

    fn handle(&mut self, Do(operation): Do<O>, _: &mut Context<Self>) -> Self::Result {
        self.serve(operation)
    }
}

impl<S: State> Handler<Destroy> for Served<S> {
    type Result = AtomicResponse<Self, Result<(), Error>>;

    fn handle(&mut self, _: Destroy, _: &mut Context<Self>) -> Self::Result {
        match self.state.destroyed_by(self.node.id) {
            Some(answer) => AtomicResponse::new(Box::pin(answer.into_actor(self))),
            None => self.serve(DestroyNow(PhantomData)),
        }
    }
}

impl<S: State> Handler<Restart> for Served<S> {
    type Result = AtomicResponse<Self, Result<(), Error>>;

    fn handle(&mut self, _: Restart, _: &mut Context<Self>) -> Self::Result {
        self.serve(RestartNow(PhantomData))
    }
}

struct DestroyNow<S>(PhantomData<fn() -> S>);

impl<S: State> Operation for DestroyNow<S> {
    type State = S;
    type Output = ();
    const NAME: &'static str = "destroy";
    const ALWAYS: bool = true;

    fn run(self, state: &mut S, change: &mut Change) -> Result<(), Cause> {
        let node = change.node().clone();
        change.retire(&node)?;
        state.destroy(change)
    }
}

struct RestartNow<S>(PhantomData<fn() -> S>);

impl<S: State> Operation for RestartNow<S> {
    type State = S;
    type Output = ();
    const NAME: &'static str = "restart";

    fn run(self, state: &mut S, change: &mut Change) -> Result<(), Cause> {
        state.adopt(change)?;
        change.restarted();
        Ok(())
    }
}

/// How an operation ended.
struct Outcome<S, T> {
    /// The new state, if it changed.
    state: Option<S>,
    result: Result<T, Error>,
    /// As asked, or safely blocked.
    safe: bool,
    after: Vec<(Arc<Node>, Recipient<Destroy>)>,
}

/// Runs one operation on a thread that may block.
fn carry_out<O: Operation>(
    operation: O,
    state: O::State,
    node: &Arc<Node>,
    shared: &Arc<Shared>,
) -> Outcome<O::State, O::Output> {
    let failed = |cause| Err(error_of(node, O::CREATES, O::NAME, cause));
    let refused = |cause, safe| Outcome { state: None, result: failed(cause), safe, after: Vec::new() };
    let blocks = match node.state() {
        ObjectState::Destroyed => return refused(Cause::NotFound(node.kind), false),
        ObjectState::Quarantined if !O::ALWAYS => return refused(Cause::Quarantined(node.reason()), false),
        ObjectState::Degraded => O::CONFIGURES,
        _ => false,
    };
    let fails_closed = operation.fails_closed();
    let mut next = state.clone();
    let mut change = Change::new(shared.clone(), node.clone(), O::NAME);
    let ran = catch_unwind(AssertUnwindSafe(|| {
        change.begin();
        if blocks {
            next.block(&mut change)?;
            return Ok(None);
        }
        operation.run(&mut next, &mut change).map(Some)
    }));
    match ran {
        Ok(Ok(answer)) => {
            next.committed();
            if answer.is_none() {
                change.tell(HostEvent::Blocked { kind: node.kind, id: node.id });
                shared.supervise(node.id);
            }
            let after = change.commit();
            let degraded = || Cause::Panicked(format!("{}; DMA is blocked until the restart", node.reason()));
            let result = answer.map_or_else(|| failed(degraded()), Ok);
            Outcome { state: Some(next), result, safe: true, after }
        }
        Ok(Err(cause)) => {
            change.roll_back();
            if !fails_closed {
                return refused(cause, false);
            }
            let reason = cause.to_string();
            node.set(ObjectState::Degraded, &reason);
            shared.tell(HostEvent::Degraded { kind: node.kind, id: node.id, reason });
            fail_safe(state, failed(cause), node, shared)
        }
        Err(panic) => {
            change.roll_back();
            let reason = words(panic.as_ref());
            let before = fails_closed.then(|| state.clone());
            let state = panicked(state, &reason, node, shared);
            let result = failed(Cause::Panicked(reason));
            match before {
                Some(before) if node.state() == ObjectState::Degraded => fail_safe(before, result, node, shared),
                _ => Outcome { state, result, safe: false, after: Vec::new() },
            }
        }
    }
}

/// After a change that failed and that nobody will ask for again: no DMA passes until a restart did what was asked.
fn fail_safe<S: State, T>(
    mut state: S,
    result: Result<T, Error>,
    node: &Arc<Node>,
    shared: &Arc<Shared>,
) -> Outcome<S, T> {
    let mut change = Change::new(shared.clone(), node.clone(), "block");
    let blocked = catch_unwind(AssertUnwindSafe(|| state.block(&mut change)));
    let safe = matches!(blocked, Ok(Ok(())));
    let after = change.commit();
    if safe {
        state.committed();
        shared.tell(HostEvent::Blocked { kind: node.kind, id: node.id });
        shared.supervise(node.id);
    } else {
        let reason = format!("{}; and DMA could not be blocked", node.reason());
        if catch_unwind(AssertUnwindSafe(|| quarantine(&mut state, &reason, node, shared))).is_err() {
            tracing::error!(kind = %node.kind, id = node.id, "blocking a quarantined object panicked");
        }
    }
    Outcome { state: Some(state), result, safe, after }
}

/// After a panic: degraded, or quarantined if it happened too often. The new state, if it changed.
fn panicked<S: State>(mut state: S, reason: &str, node: &Arc<Node>, shared: &Arc<Shared>) -> Option<S> {
    let (kind, id) = (node.kind, node.id);
    if !node.too_many_panics(shared.clock.now()) {
        node.set(ObjectState::Degraded, reason);
        shared.tell(HostEvent::Degraded { kind, id, reason: reason.to_owned() });
        if !S::GUARDS_DMA {
            shared.supervise(id);
        }
        return None;
    }
    let blocked = catch_unwind(AssertUnwindSafe(|| quarantine(&mut state, reason, node, shared)));
    if blocked.is_err() {
        tracing::error!(%kind, id, "blocking a quarantined object panicked");
    }
    Some(state)
}

/// Tries to block the DMA of an object that is out of service, each as long as the hardware may take.
const BLOCK_TRIES: u32 = 8;

/// Takes an object out of service for good: no DMA of it passes, operations answer so.
pub(crate) fn quarantine<S: State>(state: &mut S, reason: &str, node: &Arc<Node>, shared: &Arc<Shared>) {
    let (kind, id) = (node.kind, node.id);
    if node.state() != ObjectState::Quarantined {
        node.set(ObjectState::Quarantined, reason);
        shared.tell(HostEvent::Quarantined { kind, id, reason: reason.to_owned() });
    }
    let mut change = Change::new(shared.clone(), node.clone(), "quarantine");
    // Nobody will ask for this again, and hardware that is slow is not hardware that is gone.
    for left in (0..BLOCK_TRIES).rev() {
        match state.block(&mut change) {
            Ok(()) => break,
            Err(error) => tracing::error!(%kind, id, %error, left, "a quarantined object could not be blocked whole"),
        }
    }
    state.quarantined();
    state.committed();
    change.commit();
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without words".into())
}
