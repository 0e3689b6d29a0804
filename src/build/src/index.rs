//! Indices of customers and workers in a scan: numbers that can't be mixed up. Knows nothing of what they refer to.

/// The index of a customer's record in a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordIndex(u32);

/// The index of a worker's unit in the record of its customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnitIndex(u32);

macro_rules! index {
    ($name:ident) => {
        impl $name {
            pub(crate) fn new(index: usize) -> $name {
                $name(u32::try_from(index).expect("BUG: a fleet has fewer than four billion workers"))
            }

            pub(crate) fn get(self) -> usize {
                self.0 as usize
            }
        }
    };
}

index!(RecordIndex);
index!(UnitIndex);

/// The index of a worker in a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkerIndex {
    /// The record of its customer.
    pub record: RecordIndex,
    /// Its unit in that record.
    pub unit: UnitIndex,
}
