-- What a supplement announces, so that the contents of components handed in later have a place to go.

alter table requests add column components jsonb not null default '[]';
create index requests_of_dossier on requests (dossier_id);

-- Uploads nobody finished are looked for by their first piece.
create index content_pieces_begun on content_pieces (stored_at) where number = 0;
