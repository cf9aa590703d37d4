// Moments that seek: the page's answers are replaced as a whole, so that listeners sit on the document.
(() => {
  let stopAt = null;
  const player = () => document.getElementById('mmn-video');

  const seek = (button) => {
    const video = player();
    if (!video) return;
    const start = Number(button.dataset.start);
    const go = () => {
      video.currentTime = start;
      stopAt = Number(button.dataset.end);
      const playing = video.play();
      if (playing) playing.catch(() => {});
    };
    if (video.readyState >= 1) go();
    else { video.addEventListener('loadedmetadata', go, { once: true }); video.load(); }
    document.querySelectorAll('.mmn-moment[aria-current]').forEach((b) => b.removeAttribute('aria-current'));
    button.setAttribute('aria-current', 'true');
  };

  document.addEventListener('click', (event) => {
    const button = event.target.closest && event.target.closest('.mmn-moment');
    if (button) seek(button);
  });

  // Events of media do not bubble, but they can be caught on the way down.
  document.addEventListener('timeupdate', (event) => {
    const video = event.target;
    if (video.id !== 'mmn-video') return;
    const duration = Number(video.dataset.duration) || video.duration;
    document.querySelectorAll('.mmn-answers').forEach(
      (answers) => answers.style.setProperty('--now', video.currentTime / duration));
    if (stopAt !== null && video.currentTime >= stopAt) { stopAt = null; video.pause(); }
  }, true);
  document.addEventListener('pause', (event) => { if (event.target.id === 'mmn-video') stopAt = null; }, true);
  document.addEventListener('error', (event) => {
    if (event.target.id !== 'mmn-video') return;
    const note = document.querySelector('.mmn-unplayable');
    if (note) note.hidden = false;
  }, true);
})();
