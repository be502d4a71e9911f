"""The discriminator's side: the tapped layer, and the head that maps its features to the teacher's width."""
