//! Dialogs: what [`telling`](super::telling) has to say, on the screen.

use bevy::{
    input_focus::{AutoFocus, FocusCause, InputFocus, InputFocusVisible, tab_navigation::*},
    prelude::*,
    ui_widgets::{Activate, ScrollIntoView},
};
use bevy_player_data::prelude::*;

use super::{
    hud,
    link::{Link, NextAttempt, Reconnect},
    saves::Saves,
    shop::ShopPanel,
    telling::{Choice, Standing, Telling, Topic, Wait, telling},
    theme::{self, Look, Modal, Theme, scrim},
};
use crate::game::{data::Cell, net::FIELD};

/// How wide a dialog is at most.
const WIDTH: f32 = 480.0;

/// What is to be told, and whether the player has read it.
#[derive(Resource, Default)]
pub struct Told {
    telling: Option<Telling>,
    closed: Option<Topic>,
    /// When the load was last said to be delayed.
    delayed_since: std::time::Duration,
}

impl Told {
    /// What is on the screen.
    pub fn open(&self) -> Option<&Telling> {
        self.telling
            .as_ref()
            .filter(|telling| self.closed != Some(telling.topic))
    }

    /// Whether nothing else can be done before the player has chosen something.
    pub fn covers_the_field(&self) -> bool {
        self.open()
            .is_some_and(|telling| !telling.topic.leaves_the_field_alone())
    }
}

/// The dialog on the screen.
#[derive(Component)]
pub struct Dialog;

/// A dialog that leaves the field alone.
#[derive(Component)]
struct Aside;

/// The part of a progress bar that is full.
#[derive(Component)]
struct Passed(Wait);

/// How many seconds are left.
#[derive(Component)]
struct Countdown(Wait);

pub fn plugin(app: &mut App) {
    app.init_resource::<Told>()
        .add_observer(choose)
        .add_observer(
            |_: On<Insert, LoadDelayed>, time: Res<Time<Real>>, mut told: ResMut<Told>| {
                told.delayed_since = time.elapsed();
            },
        )
        .add_systems(
            Update,
            (
                decide,
                show.run_if(resource_changed::<Told>),
                (keep_out_of_the_way, show_progress, count_down),
            )
                .chain(),
        )
        .add_systems(Update, (close_by_key, move_focus))
        .add_systems(PostUpdate, follow_focus.run_if(resource_changed::<InputFocus>));
}

fn decide(
    link: Res<Link>,
    me: Option<Single<Standing, With<OwnPlayer>>>,
    next: Option<Res<NextAttempt>>,
    saves: Res<Saves>,
    mut told: ResMut<Told>,
) {
    let new = telling(&link, me.as_deref(), next.as_deref(), &saves, told.delayed_since);
    if told.telling == new {
        return;
    }
    // What is told about another topic, or once more after it was over, is to be read again.
    if told.closed != new.as_ref().map(|telling| telling.topic) {
        told.closed = None;
    }
    told.telling = new;
}

fn show(
    told: Res<Told>,
    theme: Res<Theme>,
    shown: Query<Entity, With<Dialog>>,
    mut focus: ResMut<InputFocus>,
    mut commands: Commands,
) {
    for dialog in &shown {
        commands.entity(dialog).despawn();
        focus.clear();
    }
    let Some(telling) = told.open() else { return };
    if telling.topic.leaves_the_field_alone() {
        let mut aside = commands.spawn((Dialog, Aside, aside(), GlobalZIndex(5), TabGroup::new(1)));
        aside.with_children(|aside| spawn_card(aside, telling, &theme));
    } else {
        let mut covered = commands.spawn((
            Dialog,
            Modal,
            scrim(),
            BackgroundColor(theme::SCRIM),
            GlobalZIndex(20),
        ));
        covered.with_children(|covered| spawn_card(covered, telling, &theme));
    }
}

/// A strip of the field.
fn aside() -> Node {
    Node {
        position_type: PositionType::Absolute,
        left: px(0),
        right: px(hud::WIDTH),
        padding: px(16).all(),
        justify_content: JustifyContent::Center,
        ..default()
    }
}

/// Whoever walks up there should see what is before them.
fn keep_out_of_the_way(me: Single<&Cell, With<OwnPlayer>>, mut asides: Query<&mut Node, With<Aside>>) {
    for mut node in &mut asides {
        let (top, bottom) = if me.y < FIELD.y / 2 {
            (Val::Auto, px(0))
        } else {
            (px(0), Val::Auto)
        };
        if (node.top, node.bottom) != (top, bottom) {
            (node.top, node.bottom) = (top, bottom);
        }
    }
}

fn spawn_card(parent: &mut ChildSpawnerCommands<'_>, telling: &Telling, theme: &Theme) {
    let (node, ground, _) = theme::panel();
    let card = Node {
        width: px(WIDTH),
        max_width: percent(100),
        border: px(1).all().with_top(px(4)),
        padding: px(20).all(),
        ..node
    };
    parent
        .spawn((card, ground, BorderColor::all(telling.tone)))
        .with_children(|card| {
            card.spawn(theme.heading(telling.title, theme::LARGE, telling.tone));
            for paragraph in &telling.words {
                card.spawn(theme.text(paragraph, theme::BODY, theme::TEXT));
            }
            if let Some(wait) = telling.wait {
                spawn_wait(card, wait, telling.tone, theme);
            }
            card.spawn(choices()).with_children(|row| {
                for (place, &choice) in telling.choices.iter().enumerate() {
                    // Nobody should leave by pressing Enter once too often.
                    let is_likely = place == 0 && choice != Choice::Leave;
                    let look = if is_likely { Look::Primary } else { Look::Quiet };
                    let mut button = row.spawn((theme.button(choice.words(telling.topic), look), choice));
                    if is_likely && !telling.topic.leaves_the_field_alone() {
                        button.insert(AutoFocus);
                    }
                }
            });
        });
}

fn choices() -> Node {
    Node {
        column_gap: px(12),
        row_gap: px(8),
        flex_wrap: FlexWrap::Wrap,
        margin: px(4).top(),
        ..default()
    }
}

fn spawn_wait(card: &mut ChildSpawnerCommands<'_>, wait: Wait, tone: Color, theme: &Theme) {
    let rail = Node {
        height: px(8),
        border_radius: BorderRadius::MAX,
        overflow: Overflow::clip(),
        ..default()
    };
    let full = Node {
        height: percent(100),
        width: percent(0),
        ..default()
    };
    card.spawn((rail, BackgroundColor(theme::RAISED))).with_child((
        full,
        BackgroundColor(tone),
        Passed(wait),
    ));
    card.spawn((theme.text("", theme::SMALL, theme::MUTED), Countdown(wait)));
}

fn show_progress(time: Res<Time<Real>>, mut bars: Query<(&Passed, &mut Node)>) {
    for (Passed(wait), mut bar) in &mut bars {
        let whole = wait.until.saturating_sub(wait.since).as_secs_f32();
        let passed = time.elapsed().saturating_sub(wait.since).as_secs_f32();
        bar.width = percent(100.0 * (passed / whole.max(0.001)).min(1.0));
    }
}

fn count_down(time: Res<Time<Real>>, mut texts: Query<(&Countdown, &mut Text)>) {
    for (Countdown(wait), mut text) in &mut texts {
        let left = wait.until.saturating_sub(time.elapsed()).as_secs_f32().ceil();
        let words = format!("{left} s left. {}", wait.then);
        text.set_if_neq(Text(words));
    }
}

fn choose(
    pressed: On<Activate>,
    choices: Query<&Choice>,
    mut told: ResMut<Told>,
    mut commands: Commands,
    mut exit: MessageWriter<AppExit>,
) {
    match choices.get(pressed.entity) {
        Ok(Choice::TryAgain) => commands.trigger(Reconnect),
        Ok(Choice::PlayOn) => told.closed = told.telling.as_ref().map(|telling| telling.topic),
        Ok(Choice::Leave) => drop(exit.write(AppExit::Success)),
        Err(_) => {}
    }
}

/// Escape is "I have read it", where there is a way on; the shop in front of it is closed first.
fn close_by_key(
    keys: Res<ButtonInput<KeyCode>>,
    dialogs: Query<(), With<Dialog>>,
    shops: Query<(), With<ShopPanel>>,
    choices: Query<(Entity, &Choice)>,
    mut commands: Commands,
) {
    if !keys.just_pressed(KeyCode::Escape) || dialogs.is_empty() || !shops.is_empty() {
        return;
    }
    if let Some((entity, _)) = choices.iter().find(|(_, choice)| **choice == Choice::PlayOn) {
        commands.trigger(Activate { entity });
    }
}

/// Within a dialog or the shop the arrows do what Tab does.
fn move_focus(
    keys: Res<ButtonInput<KeyCode>>,
    modals: Query<Entity, With<Modal>>,
    navigation: TabNavigation,
    mut focus: ResMut<InputFocus>,
    mut is_visible: ResMut<InputFocusVisible>,
) {
    let Some(modal) = modals.iter().next() else { return };
    let action = if keys.any_just_pressed([KeyCode::ArrowRight, KeyCode::ArrowDown]) {
        NavAction::Next
    } else if keys.any_just_pressed([KeyCode::ArrowLeft, KeyCode::ArrowUp]) {
        NavAction::Previous
    } else {
        return;
    };
    let next = navigation
        .navigate(&focus, action)
        .or_else(|_| navigation.initialize(modal, action));
    if let Ok(next) = next {
        focus.set(next, FocusCause::Navigated);
        is_visible.0 = true;
    }
}

/// What is longer than the window shows whatever the keys have come to.
fn follow_focus(focus: Res<InputFocus>, nodes: Query<(), With<ComputedNode>>, mut commands: Commands) {
    if let Some(entity) = focus.get().filter(|&entity| nodes.contains(entity)) {
        commands.trigger(ScrollIntoView { entity });
    }
}
