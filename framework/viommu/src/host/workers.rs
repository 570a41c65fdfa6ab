//! The host's own threads and tasks: the actors' system, the reaper, the supervisor, the event router.

use super::event::HostEvent;
use super::shared::Shared;
use crate::backend::BackendEvent;
use crate::objects::change::destroy;
use crate::objects::served::{Destroy, Do, Restart, destroy_by};
use crate::objects::{Node, ObjectState, Quarantine, ViommuState};
use crate::seams::{BlockingPool, Running, TokioPool, wait};
use crate::simulation;
use actix::{Arbiter, ArbiterHandle, Recipient, System};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use tokio::sync::oneshot;
use viommu_plugin::{GuestFault, NO_STREAM};

/// Work for the reaper.
pub(crate) enum Reap {
    /// The last handle of an object is gone. Children come before their parents.
    Object { node: Arc<Node>, object: Recipient<Destroy> },
    /// A device could not be detached.
    Detach(u32),
    /// An object that an operation made and, when it failed, could not destroy: nobody has a handle to it.
    Orphan(u32),
    /// Answers when everything before it was tried, and what failed was tried again.
    Flush(oneshot::Sender<()>),
}

/// The thread that runs the actors.
pub(crate) struct ActorThread {
    pub(crate) arbiter: ArbiterHandle,
    /// None in a simulation, whose thread runs them. Hosts of one machine may share it: the last ends it.
    own: Option<Arc<Own>>,
}

struct Own {
    system: System,
    thread: Box<dyn Running>,
    runtime: tokio::runtime::Handle,
}

impl ActorThread {
    pub(crate) fn start() -> std::io::Result<Self> {
        let (started, start) = std::sync::mpsc::channel();
        let body = move || {
            let runner = System::new();
            let parts =
                runner.block_on(async { (System::current(), Arbiter::current(), tokio::runtime::Handle::current()) });
            if started.send(parts).is_ok()
                && let Err(error) = runner.run()
            {
                tracing::error!(%error, "actor system");
            }
        };
        let thread = std::thread::Builder::new().name("viommu-actors".into()).spawn(body)?;
        let (system, arbiter, runtime) =
            start.recv().map_err(|_| std::io::Error::other("the actor system did not start"))?;
        Ok(Self { arbiter, own: Some(Arc::new(Own { system, thread: Box::new(thread), runtime })) })
    }

    /// The same thread, for the host of another IOMMU.
    pub(crate) fn shared(&self) -> Self {
        Self { arbiter: self.arbiter.clone(), own: self.own.clone() }
    }

    /// The system of this thread's simulation.
    pub(crate) fn simulated() -> std::io::Result<Self> {
        let arbiter = simulation::System::here()?.ok_or_else(|| std::io::Error::other("not in a simulation"))?;
        Ok(Self { arbiter, own: None })
    }

    /// The blocking pool of its runtime.
    pub(crate) fn pool(&self) -> Arc<dyn BlockingPool> {
        let runtime = self.own.as_ref().map(|own| own.runtime.clone());
        match runtime {
            Some(runtime) => Arc::new(TokioPool(runtime)),
            None => simulation::blocking_pool(),
        }
    }

    /// Ends the system, if no other host has it, and, unless called on it, waits for its thread.
    pub(crate) fn stop(&mut self) {
        if let Some(Own { system, thread, .. }) = self.own.take().and_then(Arc::into_inner) {
            system.stop();
            thread.join();
        }
    }
}

/// Destroys what nobody holds any more, in order. What fails is tried again whenever something succeeded since, and at
/// each flush.
pub(crate) async fn reaper(shared: std::sync::Weak<Shared>, work: flume::Receiver<Reap>) {
    let mut failed: VecDeque<Reap> = VecDeque::new();
    while let Ok(next) = work.recv_async().await {
        match next {
            Reap::Flush(done) => {
                // Children may come after parents among the failed: as long as one goes, another may.
                let mut before = usize::MAX;
                while failed.len() < before {
                    before = failed.len();
                    for _ in 0..before {
                        let Some(again) = failed.pop_front() else { break };
                        failed.extend(reap(&shared, again).await);
                    }
                }
                let _ = done.send(());
            }
            next => failed.extend(reap(&shared, next).await),
        }
    }
}

/// What is left to do, if it failed.
async fn reap(shared: &std::sync::Weak<Shared>, what: Reap) -> Option<Reap> {
    match what {
        Reap::Object { node, object } => {
            if node.state() == ObjectState::Destroyed {
                return None;
            }
            match destroy_by(&object, node.id).await {
                Ok(Ok(())) => None,
                _ if node.state() == ObjectState::Destroyed => None,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "destroy failed; tried again later");
                    Some(Reap::Object { node, object })
                }
                Err(_) => None,
            }
        }
        Reap::Detach(device) => {
            let backend = shared.upgrade()?.backend.clone();
            let job = shared.upgrade()?.off_thread(move || wait(backend.detach(device)));
            match job.await {
                Some(Err(error)) if error.errno() != viommu_plugin::Refusal::ENOENT => {
                    tracing::warn!(device, %error, "detach failed again");
                    Some(Reap::Detach(device))
                }
                _ => None,
            }
        }
        Reap::Orphan(id) => {
            let backend = shared.upgrade()?.backend.clone();
            let job = shared.upgrade()?.off_thread(move || destroy(&*backend, id));
            match job.await {
                Some(Err(error)) => {
                    tracing::warn!(id, %error, "destroy of an object that nobody has failed again");
                    Some(Reap::Orphan(id))
                }
                _ => None,
            }
        }
        Reap::Flush(_) => None,
    }
}

/// Restarts objects and what was made on them, in OTP's order.
pub(crate) async fn supervisor(shared: std::sync::Weak<Shared>, work: flume::Receiver<u32>) {
    while let Ok(id) = work.recv_async().await {
        let Some(rest) = shared.upgrade().map(|shared| shared.registry.rest_for_one(id)) else { return };
        for (node, restart) in rest {
            let Some(actor) = restart.upgrade() else { continue };
            simulation::pass(node.id, "restart").await;
            if let Ok(Err(error)) = actor.send(Restart).await {
                tracing::warn!(%error, id = node.id, "restart failed");
                break;
            }
        }
    }
}

/// Takes what the hardware reports to whom it concerns, until `stop` is dropped.
pub(crate) fn route_events(
    shared: &std::sync::Weak<Shared>,
    events: &flume::Receiver<BackendEvent>,
    stop: &flume::Receiver<()>,
) {
    loop {
        let next = wait(async {
            let (mut event, mut stopped) = (pin!(events.recv_async()), pin!(stop.recv_async()));
            poll_fn(|context| match (stopped.as_mut().poll(context), event.as_mut().poll(context)) {
                (Poll::Ready(_), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(None),
                (_, Poll::Ready(Ok(event))) => Poll::Ready(Some(event)),
                _ => Poll::Pending,
            })
            .await
        });
        let (Some(event), Some(shared)) = (next, shared.upgrade()) else { return };
        route(&shared, event);
    }
}

fn route(shared: &Shared, event: BackendEvent) {
    match event {
        BackendEvent::Guest { stream, record, words } => {
            // The route is copied out: delivery takes the guest's registers, and nobody may wait for that.
            let route = shared.routes.get(&stream).map(|route| (route.pipeline.clone(), route.virt_id));
            match route {
                Some((pipeline, virt_id)) => {
                    let words = (words as usize).min(record.len());
                    pipeline.deliver_event(virt_id, &record[..words]);
                }
                None => tracing::debug!(stream, "event of a device that has left its guest"),
            }
        }
        BackendEvent::Queues { viommu, record, words } => {
            // Looked up by the vIOMMU: it may have no device.
            let guests = shared.registry.handles::<ViommuState>();
            match guests.iter().find(|guest| guest.node.id == viommu) {
                Some(guest) => {
                    let words = (words as usize).min(record.len());
                    guest.facts.pipeline.deliver_event(NO_STREAM, &record[..words]);
                }
                None => tracing::debug!(viommu, "event of a guest that is gone"),
            }
        }
        BackendEvent::Host { stream, code } => shared.tell(HostEvent::HostFault { stream, code }),
        BackendEvent::Lost => {
            // Each guest once, in the order in which they came.
            let guests = shared.routes.iter().map(|route| (route.pipeline.owner(), route.pipeline.clone()));
            let guests: BTreeMap<_, _> = guests.collect();
            guests.values().for_each(|pipeline| pipeline.event_lost());
            shared.tell(HostEvent::EventsLost);
        }
        BackendEvent::GuestLost { viommu, records } => {
            tracing::warn!(viommu, records, "event records of a guest were lost");
            let guests = shared.registry.handles::<ViommuState>();
            if let Some(guest) = guests.iter().find(|guest| guest.node.id == viommu) {
                guest.facts.pipeline.event_lost();
            }
            shared.tell(HostEvent::GuestEventsLost { viommu, records });
        }
        BackendEvent::PageRequest(request) => {
            if !shared.tell_somebody(&HostEvent::PageRequest(request)) {
                // Nobody will answer it. Its group may be answered already, for a page of it before this one.
                let answered = shared.backend.page_response(request.queue, request.cookie, false);
                tracing::warn!(?request, ?answered, "a page request that nobody hears");
            }
        }
        BackendEvent::QueueError { owner, fault } => {
            let Some((viommu, actor)) = shared.owners.get(&owner).map(|entry| entry.clone()) else { return };
            if fault == GuestFault::ATC_TIMEOUT {
                shared.tell(HostEvent::DeviceTimedOut { viommu });
            } else if let Some(actor) = actor.upgrade() {
                // At most one a guest: the sink takes no more commands of a quarantined owner.
                simulation::post(viommu, "quarantine", move || actor.do_send(Do(Quarantine(fault))));
            }
        }
    }
}
