//! Every conformance check, on the linked vendor and on its `.so`.

#![forbid(unsafe_code)]

viommu_plugin_check::conformance!(arm_smmuv3::ArmSmmuv3, "arm_smmuv3_plugin");
