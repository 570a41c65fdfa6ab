//! The plugin `tegra-vcmdq`: [`tegra_vcmdq::TegraVcmdq`] behind the C table, as `libtegra_vcmdq_plugin.so`.

#![forbid(unsafe_code)]

viommu_plugin::export_plugin!(tegra_vcmdq::TegraVcmdq);
