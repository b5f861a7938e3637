//! Telling what has happened to a player beside changes of the data: errors, and that they have passed.

use super::Teller;
use crate::{
    player::{LoadDelayed, SaveBlocked, SaveUnderWay},
    replication::{link::Stage, protocol::ToClient},
};

impl Teller<'_> {
    pub(super) fn tell_news(&mut self) -> bool {
        self.tell_delay()
            && self.tell_blocked()
            && self.tell_load_failure()
            && self.tell_save()
            && self.tell_saving()
    }

    fn tell_delay(&mut self) -> bool {
        let (Some(watched), Some(entity)) = (&self.link.watched, self.player_on_show()) else {
            return true;
        };
        let Some(delayed) = entity.get::<LoadDelayed>() else {
            return true; // It goes with the loading state, and the client knows.
        };
        let reason = delayed.reason().for_player();
        if watched.told != Some(Stage::Loading) || watched.delayed.as_ref() == Some(&reason) {
            return true;
        }
        let gives_up_in = delayed.time_left().as_millis();
        let is_said = self.say(&ToClient::LoadDelayed {
            reason: reason.clone(),
            gives_up_in: u32::try_from(gives_up_in).unwrap_or(u32::MAX),
        });
        if is_said && let Some(watched) = &mut self.link.watched {
            watched.delayed = Some(reason);
        }
        is_said
    }

    fn tell_blocked(&mut self) -> bool {
        let (Some(watched), Some(entity)) = (&self.link.watched, self.player_on_show()) else {
            return true;
        };
        let blocked = entity
            .get::<SaveBlocked>()
            .map(|blocked| blocked.reason().for_player());
        if watched.blocked == blocked || !watched.has_values() {
            return true;
        }
        let is_said = self.say(&ToClient::Blocked {
            reason: blocked.clone(),
        });
        if is_said && let Some(watched) = &mut self.link.watched {
            watched.blocked = blocked;
        }
        is_said
    }

    fn tell_load_failure(&mut self) -> bool {
        let Some(watched) = &mut self.link.watched else {
            return true;
        };
        let Some(error) = watched.news.load_failed.take() else {
            return true;
        };
        let is_said = self.say(&ToClient::LoadFailed { error: error.clone() });
        if !is_said && let Some(watched) = &mut self.link.watched {
            watched.news.load_failed = Some(error);
        }
        is_said
    }

    /// After the values: what was bought is there when its purchase is told.
    pub(super) fn tell_purchases(&mut self) -> bool {
        while let Some(news) = self.link.watched.as_mut().and_then(|watched| {
            // Whom it is about has to be known first.
            watched
                .has_values()
                .then(|| watched.news.purchases.pop_front())
                .flatten()
        }) {
            if !self.say(&ToClient::Purchase(news.clone())) {
                if let Some(watched) = &mut self.link.watched {
                    watched.news.purchases.push_front(news);
                }
                return false;
            }
        }
        true
    }

    fn tell_save(&mut self) -> bool {
        let is_saving = self.is_saving();
        let Some(watched) = &mut self.link.watched else {
            return true;
        };
        let Some((is_final, result)) = watched.news.saved.take() else {
            return true;
        };
        let is_said = self.say(&ToClient::Saved {
            is_final,
            result: result.clone(),
            is_saving,
        });
        if let Some(watched) = &mut self.link.watched {
            if is_said {
                watched.is_saving = is_saving;
            } else {
                watched.news.saved = Some((is_final, result));
            }
        }
        is_said
    }

    /// A save has begun. That it has ended goes with its result.
    fn tell_saving(&mut self) -> bool {
        let is_saving = self.is_saving();
        let Some(watched) = &self.link.watched else {
            return true;
        };
        if watched.is_saving || !is_saving || !watched.has_values() {
            return true;
        }
        let is_said = self.say(&ToClient::Saving);
        if is_said && let Some(watched) = &mut self.link.watched {
            watched.is_saving = true;
        }
        is_said
    }

    fn is_saving(&self) -> bool {
        self.player_on_show()
            .is_some_and(|entity| entity.contains::<SaveUnderWay>())
    }
}
