//! The field: everybody on it, and what lies there. The server says ten times a second where everybody is; in between,
//! they are on their way.
//!
//! One unit of the world is one cell. The player's own cell comes from the mirror, which is ahead of what everybody sees.

use bevy::{
    platform::collections::HashMap,
    prelude::*,
    sprite::{Anchor, Text2dShadow},
    ui::UiScale,
};
use bevy_player_data::prelude::*;
use bevy_renet::{RenetClient, RenetReceive};

use super::{
    hud,
    link::Account,
    map::{self, Map},
    theme::{self, Theme, color_of},
};
use crate::game::{
    data::{Cell, Paint, Settings},
    net::{self, FIELD, FieldView, Introduction, PlayerView, Wish},
};

/// How long a step takes on the screen: as long as it is until the next view.
const STEP: f32 = 0.1;
/// Whoever is farther away than this has not walked there.
const LEAP: f32 = 5.0;
/// How much of what lies around the field can be seen, in cells: enough for the name of whoever walks along its edge.
const MARGIN: f32 = 1.0;
/// How many pixels a picture has in each direction, and so a cell at least.
const PIXELS: f32 = 16.0;

/// What the server has shown last.
#[derive(Resource, Default)]
pub struct Seen(pub FieldView);

/// The player's own tag.
#[derive(Resource)]
pub struct MyTag(pub u32);

/// Which player is whose on the field, and what lies where.
#[derive(Resource, Default)]
struct Field {
    players: HashMap<u32, Entity>,
    finds: HashMap<Cell, Entity>,
    /// What players are called, as far as the server has said; `None` while it has been asked.
    names: HashMap<u32, Option<String>>,
}

/// A player on the field, who walks from one place to another.
#[derive(Component)]
struct Walker {
    tag: u32,
    from: Vec2,
    to: Vec2,
    /// How much of the way is done, from 0 to 1.
    done: f32,
    color: Paint,
}

/// The part of a walker that hops along.
#[derive(Component)]
struct Body;

/// The name over a walker.
#[derive(Component)]
struct NameTag;

/// Something to pick up.
#[derive(Component)]
struct Coin;

/// How many pixels a cell takes on the screen.
#[derive(Resource)]
struct Zoom(f32);

pub fn plugin(app: &mut App) {
    app.init_resource::<Field>()
        .init_resource::<Map>()
        .init_resource::<Seen>()
        .insert_resource(Zoom(2.0 * PIXELS))
        .add_observer(|loaded: On<PlayerLoaded>, mut commands: Commands| {
            commands.insert_resource(MyTag(net::tag(loaded.player)));
        })
        .add_observer(|failed: On<PlayerLoadFailed>, mut commands: Commands| {
            commands.insert_resource(MyTag(net::tag(failed.player)));
        })
        .add_systems(Startup, lay_out)
        .add_systems(
            PreUpdate,
            receive.after(RenetReceive).run_if(resource_exists::<RenetClient>),
        )
        .add_systems(
            Update,
            (
                (place_players, lay_finds, map::draw).run_if(resource_changed::<Seen>),
                walk_myself.run_if(resource_exists::<MyTag>),
                walk,
                ask_for_names.run_if(resource_exists::<RenetClient>),
                show_names,
                spin_coins,
                fit_zoom,
                follow,
            )
                .chain(),
        );
}

fn lay_out(theme: Res<Theme>, mut commands: Commands) {
    commands.spawn((Camera2d, Msaa::Off));
    commands.spawn((
        Sprite {
            image: theme.field.clone(),
            custom_size: Some(size()),
            ..default()
        },
        Transform::from_translation((size() / 2.0 * Vec2::new(1.0, -1.0)).extend(0.0)),
    ));
}

/// The field's, in cells.
fn size() -> Vec2 {
    Vec2::new(FIELD.x.into(), FIELD.y.into())
}

/// The middle of a cell. Rows are counted downwards.
fn place_of(cell: Cell) -> Vec2 {
    Vec2::new(f32::from(cell.x) + 0.5, -f32::from(cell.y) - 0.5)
}

fn receive(mut client: ResMut<RenetClient>, mut field: ResMut<Field>, mut seen: ResMut<Seen>) {
    while let Some(message) = client.receive_message(net::INTRODUCTIONS) {
        if let Some(Introduction { tag, name }) = net::decode(&message) {
            field.names.insert(tag, Some(name));
        }
    }
    while let Some(message) = client.receive_message(net::VIEWS) {
        if let Some(view) = net::decode(&message) {
            seen.0 = view;
        }
    }
}

fn place_players(
    seen: Res<Seen>,
    theme: Res<Theme>,
    my_tag: Option<Res<MyTag>>,
    mut field: ResMut<Field>,
    mut walkers: Query<&mut Walker>,
    mut commands: Commands,
) {
    let my_tag = my_tag.map(|tag| tag.0);
    let mut gone = std::mem::take(&mut field.players);
    for player in &seen.0.players {
        let walker = gone
            .remove(&player.tag)
            .unwrap_or_else(|| spawn_walker(&mut commands, &theme, player));
        field.players.insert(player.tag, walker);
        if let Ok(mut walker) = walkers.get_mut(walker) {
            // Of the player, the mirror knows better.
            if Some(player.tag) != my_tag {
                walker.go_to(place_of(player.cell));
                walker.color = player.color;
            }
        }
    }
    for walker in gone.into_values() {
        commands.entity(walker).despawn();
    }
}

fn lay_finds(seen: Res<Seen>, theme: Res<Theme>, mut field: ResMut<Field>, mut commands: Commands) {
    let mut gone = std::mem::take(&mut field.finds);
    for &cell in &seen.0.finds {
        let coin = gone.remove(&cell).unwrap_or_else(|| {
            let place = Transform::from_translation(place_of(cell).extend(1.0));
            commands.spawn((Coin, sprite(&theme.coin, 0.8), place)).id()
        });
        field.finds.insert(cell, coin);
    }
    for coin in gone.into_values() {
        commands.entity(coin).despawn();
    }
}

fn sprite(image: &Handle<Image>, size: f32) -> Sprite {
    Sprite {
        image: image.clone(),
        custom_size: Some(Vec2::splat(size)),
        ..default()
    }
}

fn spawn_walker(commands: &mut Commands, theme: &Theme, player: &PlayerView) -> Entity {
    let place = place_of(player.cell);
    let walker = Walker {
        tag: player.tag,
        from: place,
        to: place,
        done: 1.0,
        color: player.color,
    };
    let name = (
        NameTag,
        Text2d::default(),
        theme.bold(theme::SMALL),
        TextColor(theme::TEXT),
        Text2dShadow {
            offset: Vec2::new(1.0, -1.0),
            color: theme::INK,
        },
        Anchor::BOTTOM_CENTER,
        Transform::from_xyz(0.0, 0.55, 2.0),
    );
    commands
        .spawn((
            walker,
            Transform::from_translation(place.extend(2.0)),
            Visibility::default(),
            children![
                sprite(&theme.shadow, 1.0),
                (Body, sprite(&theme.player, 1.0)),
                name
            ],
        ))
        .id()
}

impl Walker {
    fn go_to(&mut self, to: Vec2) {
        if self.to == to {
            return;
        }
        self.from = if self.to.distance(to) < LEAP {
            self.place()
        } else {
            to
        };
        self.to = to;
        self.done = 0.0;
    }

    fn place(&self) -> Vec2 {
        self.from.lerp(self.to, self.done)
    }
}

/// The mirror says first where the player is, and in which color.
fn walk_myself(
    me: Single<(&Cell, &Settings), With<OwnPlayer>>,
    my_tag: Res<MyTag>,
    field: Res<Field>,
    mut walkers: Query<&mut Walker>,
) {
    if let Some(&walker) = field.players.get(&my_tag.0)
        && let Ok(mut walker) = walkers.get_mut(walker)
    {
        let (&cell, settings) = *me;
        walker.go_to(place_of(cell));
        walker.color = settings.color;
    }
}

/// What bounces, and not who walks.
type BodyAlone = (With<Body>, Without<Walker>);

fn walk(
    time: Res<Time>,
    mut walkers: Query<(&mut Walker, &mut Transform, &Children)>,
    mut bodies: Query<(&mut Sprite, &mut Transform), BodyAlone>,
) {
    for (mut walker, mut transform, parts) in &mut walkers {
        walker.done = (walker.done + time.delta_secs() / STEP).min(1.0);
        let place = walker.place();
        // Whoever stands lower stands in front.
        transform.translation = place.extend(2.0 - place.y / f32::from(FIELD.y));
        let mut bodies = bodies.iter_many_mut(parts);
        while let Some((mut sprite, mut body)) = bodies.fetch_next() {
            sprite.color = color_of(walker.color);
            let way = walker.to.x - walker.from.x;
            if way != 0.0 {
                sprite.flip_x = way < 0.0;
            }
            body.translation.y = 0.12 * (walker.done * std::f32::consts::PI).sin();
        }
    }
}

/// A name is asked for once, when somebody is first seen.
fn ask_for_names(mut client: ResMut<RenetClient>, mut field: ResMut<Field>) {
    let Field { players, names, .. } = &mut *field;
    for &tag in players.keys() {
        names.entry(tag).or_insert_with(|| {
            client.send_message(net::WISHES, net::encode(&Wish::WhoIs(tag)));
            None
        });
    }
}

type Unnamed<'w, 's> = Query<
    'w,
    's,
    (
        &'static mut Text2d,
        &'static mut TextColor,
        &'static mut Transform,
        &'static ChildOf,
    ),
    With<NameTag>,
>;

fn show_names(
    field: Res<Field>,
    account: Res<Account>,
    my_tag: Option<Res<MyTag>>,
    zoom: Res<Zoom>,
    scale: Res<UiScale>,
    walkers: Query<&Walker>,
    mut tags: Unnamed,
) {
    let my_tag = my_tag.map(|tag| tag.0);
    for (mut text, mut color, mut transform, &ChildOf(walker)) in &mut tags {
        let Ok(&Walker { tag, .. }) = walkers.get(walker) else {
            continue;
        };
        // In pixels, whatever a cell takes.
        transform.scale = Vec3::splat(scale.0 / zoom.0);
        let is_me = Some(tag) == my_tag;
        let name = match field.names.get(&tag) {
            _ if is_me => account.name.as_str(),
            Some(Some(name)) => name,
            _ => "",
        };
        if text.0 != name {
            name.clone_into(&mut text.0);
        }
        color.set_if_neq(TextColor(if is_me { theme::GOLD } else { theme::TEXT }));
    }
}

fn spin_coins(time: Res<Time>, mut coins: Query<&mut Transform, With<Coin>>) {
    for mut coin in &mut coins {
        let turn = time.elapsed_secs() * 3.0 + coin.translation.x * 0.7 + coin.translation.y;
        coin.scale.x = 0.35 + 0.65 * turn.cos().abs();
    }
}

/// As many whole screen pixels for each of a picture's as it takes to fill the window.
fn fit_zoom(
    windows: Query<&Window, Changed<Window>>,
    scale: Res<UiScale>,
    mut zoom: ResMut<Zoom>,
    mut cameras: Query<&mut Projection, With<Camera2d>>,
) {
    for window in &windows {
        let room = room_of(window, &scale);
        let whole = room / (size() + 2.0 * MARGIN);
        let cover = whole.max_element();
        zoom.0 = PIXELS * (cover / PIXELS).ceil().max(1.0);
        for mut projection in &mut cameras {
            if let Projection::Orthographic(projection) = &mut *projection {
                projection.scale = 1.0 / zoom.0;
            }
        }
    }
}

/// What the HUD leaves of the window.
fn room_of(window: &Window, scale: &UiScale) -> Vec2 {
    window.size() - Vec2::new(hud::WIDTH * scale.0, 0.0)
}

/// Keeps the player in the middle of what the HUD leaves of the window, and the window full of field.
fn follow(
    windows: Query<&Window>,
    scale: Res<UiScale>,
    zoom: Res<Zoom>,
    my_tag: Option<Res<MyTag>>,
    field: Res<Field>,
    walkers: Query<&Walker>,
    mut cameras: Query<&mut Transform, With<Camera2d>>,
) {
    let (Ok(window), Ok(mut camera)) = (windows.single(), cameras.single_mut()) else {
        return;
    };
    let me = my_tag
        .and_then(|tag| field.players.get(&tag.0))
        .and_then(|&walker| walkers.get(walker).ok());
    let center = size() / 2.0 * Vec2::new(1.0, -1.0);
    let leeway = (size() / 2.0 + MARGIN - room_of(window, &scale) / 2.0 / zoom.0).max(Vec2::ZERO);
    let target = me.map_or(center, Walker::place);
    let middle = target.clamp(center - leeway, center + leeway);
    let beside_the_hud = Vec2::new(hud::WIDTH * scale.0 / 2.0 / zoom.0, 0.0);
    // On whole pixels, or the pictures would flicker.
    let place = ((middle + beside_the_hud) * zoom.0).round() / zoom.0;
    camera.translation = place.extend(camera.translation.z);
}
