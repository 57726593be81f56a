"""The playground: a page on which a trained run is asked, watched and compared with itself."""
