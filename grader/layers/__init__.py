"""Where does a model go wrong? Compare every module with the same one of the reference."""
