//! NVIDIA's Tegra241 CMDQV as a viommu vendor: the Arm SMMUv3 with command queues that a guest fills itself.
#![forbid(unsafe_code)]
