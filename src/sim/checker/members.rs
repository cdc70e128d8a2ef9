//! Who belongs to the cluster, as far as that is committed: the same at every index on every member, and who
//! was removed never comes back.

use std::collections::{BTreeMap, BTreeSet};

use super::{Promise, Verdict, broken};
use crate::base::{Index, MemberId};
use crate::shard::event::Member;

/// The committed members, by the index of the last change to the cluster's state.
#[derive(Clone, Debug, Default)]
pub struct Members {
    lists: BTreeMap<Index, Vec<Member>>,
    removed: BTreeSet<MemberId>,
}

impl Members {
    /// A member shows its committed list, which changed last at an index.
    ///
    /// # Errors
    /// Another one was committed there, or somebody who was removed is on it.
    pub fn shows(&mut self, member: usize, changed_at: Index, list: Vec<Member>) -> Verdict {
        if let Some(known) = self.lists.get(&changed_at) {
            if *known == list {
                return Ok(());
            }
            return Err(broken(
                Promise::OneHistory,
                format_args!(
                    "member {member} has committed {list:?} at index {changed_at}, another one {known:?}"
                ),
            ));
        }
        if let Some((newest, last)) = self.lists.last_key_value()
            && changed_at > *newest
        {
            let stays = |id| list.iter().any(|member| member.id == id);
            let gone = last.iter().map(|member| member.id).filter(|&id| !stays(id));
            self.removed.extend(gone);
            if let Some(back) = list.iter().find(|member| self.removed.contains(&member.id)) {
                return Err(broken(
                    Promise::OneHistory,
                    format_args!("{back:?} was removed and is back at index {changed_at}"),
                ));
            }
        }
        self.lists.insert(changed_at, list);
        Ok(())
    }

    /// The newest list that any member was seen to have committed, by id.
    #[must_use]
    pub fn newest(&self) -> &[Member] {
        self.lists.last_key_value().map_or(&[], |(_, list)| list)
    }

    /// Whether a member is on the newest list.
    #[must_use]
    pub fn contains(&self, id: MemberId) -> bool {
        self.newest().iter().any(|member| member.id == id)
    }

    /// Whether a member was on the list and is not any more.
    #[must_use]
    pub fn is_removed(&self, id: MemberId) -> bool {
        self.removed.contains(&id)
    }
}
