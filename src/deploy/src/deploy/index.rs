//! Indices into lists, each with a type of its own, so that none is taken for another. Knows nothing else of the
//! items.

/// Defines the type of a place.
macro_rules! index {
    ($(#[$doc:meta])* $visibility:vis $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $visibility struct $name(u32);

        impl $name {
            /// Returns the index of the item at this position.
            $visibility fn new(place: usize) -> $name {
                $name(u32::try_from(place).expect("BUG: there are fewer than 2^32 of everything"))
            }

            /// Returns the place as a number.
            $visibility fn place(self) -> usize {
                self.0 as usize
            }
        }
    };
}

index!(
    /// The place of a change in its plan.
    pub ChangeIndex
);
index!(
    /// The place of a wave in its plan.
    pub WaveIndex
);
index!(
    /// The place of a step in its change.
    pub(super) StepIndex
);
index!(
    /// The place of a lane among those that a deploy sends through.
    pub LaneId
);
index!(
    /// A lookup of a deploy.
    pub LookupId
);
index!(
    /// A write of hosts of a wave.
    pub HostWriteId
);
index!(
    /// A host that is put back to the worker that had it.
    pub PutBackId
);
index!(
    /// A database that is migrated, by its place in the plan.
    pub DatabaseIndex
);
