//! Every conformance check, on the linked vendor and on its `.so`.

#![forbid(unsafe_code)]

viommu_plugin_check::conformance!(intel_vtd::IntelVtd, "intel_vtd_plugin");
