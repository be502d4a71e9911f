"""The discriminator's side: which layer is read, and how its features reach the teacher's width."""
