-- People who sign in. A session carries the epoch of its user, which a sign-out and a new password raise.
create table users (
    name                text primary key,
    password_hash       text    not null,
    role                text    not null check (role in ('user', 'reader', 'operator', 'admin')),
    epoch               integer not null,
    created_by          text    not null,
    created_at          integer not null,
    password_changed_at integer not null
);
