//! The plugin `arm-smmuv3`: [`arm_smmuv3::ArmSmmuv3`] behind the C table, as `libarm_smmuv3_plugin.so`.

#![forbid(unsafe_code)]

viommu_plugin::export_plugin!(arm_smmuv3::ArmSmmuv3);
