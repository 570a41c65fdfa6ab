//! The backend that owns an IOMMU and programs it through a vendor plugin.
