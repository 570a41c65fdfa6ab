//! The plugin `intel-vtd`: [`intel_vtd::IntelVtd`] behind the C table, as `libintel_vtd_plugin.so`.

#![forbid(unsafe_code)]

viommu_plugin::export_plugin!(intel_vtd::IntelVtd);
