INSERT INTO orders VALUES (2);
INSERT INTO orders VALUES ('it''s;
