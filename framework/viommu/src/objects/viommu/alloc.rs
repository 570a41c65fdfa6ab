//! VIOMMU_ALLOC: the backend's object, the data path, the actor.

use super::configure::{Quarantine, Reconfigure};
use super::state::{View, ViommuFacts, ViommuState};
use super::{ViommuConfig, ViommuInfo};
use crate::Cause;
use crate::backend::ObjectKind;
use crate::objects::served::{Do, Operation, Served};
use crate::objects::{Change, Link, NestParent, NestParentState};
use crate::pipeline::{ConfigRequest, Pipeline, PipelineParts};
use crate::seams::wait;
use crate::simulation;
use actix::WeakAddr;
use arc_swap::ArcSwap;
use std::sync::{Arc, OnceLock};
use viommu_plugin::{GuestTraits, TranslationMode};
use viommu_plugin_host::Codec;

/// Welds a vIOMMU to a nesting parent. Fails if the parent carries one.
pub(crate) struct AllocViommu {
    pub(crate) parent: NestParent,
    pub(crate) config: ViommuConfig,
    /// The frontend's state, if it was saved.
    pub(crate) state: Option<Vec<u8>>,
}

impl Operation for AllocViommu {
    type State = NestParentState;
    type Output = Arc<Link<ViommuState>>;
    const NAME: &'static str = "alloc";
    const CREATES: Option<ObjectKind> = Some(ObjectKind::Viommu);

    fn run(self, _: &mut NestParentState, change: &mut Change) -> Result<Self::Output, Cause> {
        let Self { parent, config, state } = self;
        let (node, shared) = (change.node().clone(), change.shared().clone());
        // 1. Everything that can be refused without the backend.
        change.acquire_only(&node, ObjectKind::Viommu, || {
            let id = node.id;
            format!("nesting parent {id} carries a vIOMMU: two would share its VMID, so equal ASIDs would alias")
        })?;
        let codec = shared.plugin.codec(&config.registers)?;
        let mode = served_as(&codec, change)?;
        let mut frontend = config.frontend.then(|| shared.plugin.frontend(&config.registers)).transpose()?;
        if let (Some(frontend), Some(state)) = (&mut frontend, state) {
            frontend.restore(&state)?;
        }
        // 2. The backend's object.
        let alloc = wait(change.backend().viommu_alloc(node.id))?;
        change.undo_by_destroy(alloc.id);
        if codec.traits()?.any(GuestTraits::INTERFACE) {
            wait(change.backend().interface_give(alloc.id))?;
        }
        // 3. The data path. It asks for configuration changes by a message to an actor that does not exist yet.
        let actor: Arc<OnceLock<WeakAddr<Served<ViommuState>>>> = Arc::default();
        let (owner, shard) = shared.owner_and_shard(alloc.id)?;
        let page = change.backend().guest_page(alloc.id)?;
        let pipeline = Pipeline::new(PipelineParts {
            owner,
            tag: alloc.tag,
            plugin: shared.plugin.info().clone(),
            frontend,
            codec,
            memory: config.memory,
            shard,
            backend: change.backend(),
            page: page.clone(),
            interrupts: config.interrupts,
            on_configuration: on_configuration(alloc.id, actor.clone()),
            tap: config.tap,
        });
        // 4. The actor.
        let info = ViommuInfo {
            id: alloc.id,
            tag: alloc.tag,
            abort: alloc.abort,
            bypass: alloc.bypass,
            owner: owner.0,
            mode,
            frontend: config.frontend,
        };
        let command_words = shared.plugin.info().command_words;
        let view = ArcSwap::from_pointee(View::default());
        let facts = Arc::new(ViommuFacts { info, command_words, shown: config.registers, pipeline, page, view });
        let state = ViommuState::new(facts.clone());
        let link = Link::start(change, alloc.id, vec![node], facts, parent, state);
        let weak = link.addr.downgrade();
        shared.owners.insert(owner, (alloc.id, weak.clone()));
        drop(actor.set(weak));
        Ok(link)
    }
}

/// How a guest with this codec's ID registers is served. Fails if the hardware does not serve guests so.
fn served_as(codec: &Codec, change: &Change) -> Result<TranslationMode, Cause> {
    let (mode, backend) = (codec.mode()?, change.backend().describe());
    if backend.modes & mode.bit() == 0 {
        let what = format!(
            "{}: a guest with these ID registers is to be {}, which this IOMMU cannot do",
            backend.vendor,
            mode.name()
        );
        return Err(Cause::Unsupported(what));
    }
    Ok(mode)
}

/// Turns the data path's requests into messages. They are few by construction (a guest's queue is paused while one is
/// outstanding), so they need no bound, and must never be lost.
fn on_configuration(
    id: u32,
    actor: Arc<OnceLock<WeakAddr<Served<ViommuState>>>>,
) -> Box<dyn Fn(ConfigRequest) + Send + Sync> {
    Box::new(move |request| {
        let Some(actor) = actor.get().and_then(WeakAddr::upgrade) else { return };
        match request {
            ConfigRequest::Quarantine(fault) => {
                simulation::post(id, "quarantine", move || actor.do_send(Do(Quarantine(fault))));
            }
            request => simulation::post(id, "reconfigure", move || actor.do_send(Do(Reconfigure(request)))),
        }
    })
}
