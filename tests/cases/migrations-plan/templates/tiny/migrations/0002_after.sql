-- flotilla: after
DROP TABLE orders;
