//! Every conformance check, on the linked vendor and on its `.so`.

#![forbid(unsafe_code)]

viommu_plugin_check::conformance!(amd_vi::AmdVi, "amd_vi_plugin");
