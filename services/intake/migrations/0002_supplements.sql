-- The components that a supplement announces; their contents may be uploaded afterwards.

alter table requests add column components jsonb not null default '[]';
create index requests_of_dossier on requests (dossier_id);

-- Unfinished uploads are found by their first piece.
create index content_pieces_begun on content_pieces (stored_at) where number = 0;
