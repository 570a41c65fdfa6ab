//! Every conformance check, on the linked vendor and on its `.so`.

#![forbid(unsafe_code)]

viommu_plugin_check::conformance!(tegra_vcmdq::TegraVcmdq, "tegra_vcmdq_plugin");
