//! The plugin `amd-vi`: [`amd_vi::AmdVi`] behind the C table, as `libamd_vi_plugin.so`.

#![forbid(unsafe_code)]

viommu_plugin::export_plugin!(amd_vi::AmdVi);
